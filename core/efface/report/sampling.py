"""How the pictures of one report are made: the same way before and after."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from efface.generating import check_steps
from efface.method import Progress, silent
from efface.report.prompt import Prompt

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Sampling:
    """Prompts, seeds and settings of the sampler; pictures come prompt by prompt, and seed by seed in each."""

    prompts: tuple[Prompt, ...]
    seeds: tuple[int, ...]
    steps: int = 20
    guidance: float = 7.5
    batch_size: int = 8

    def check(self, pipe: Any) -> None:
        """EffaceError for more steps than the pipeline's scheduler has timesteps."""
        check_steps(pipe, self.steps)

    def pictures(self, pipe: Any, progress: Progress = silent) -> tuple[Image, ...]:
        """Every prompt with every seed, on the pipeline as it is now."""
        return self._generated(pipe, [prompt.text for prompt in self.prompts], self.seeds, progress)

    def probe(self, pipe: Any) -> Image:
        """The first prompt with the first seed, alone: a picture that is quick to make again."""
        found: tuple[Image, ...] = self._generated(pipe, [self.prompts[0].text], self.seeds[:1], silent)
        (image,) = found
        return image

    def latents(self, pipe: Any) -> str:
        """sha256 over the final latents of every prompt with the first seed: more exact than any picture."""
        import torch

        made = self._generated(
            pipe, [prompt.text for prompt in self.prompts], self.seeds[:1], silent, output_type="latent"
        )
        digest = hashlib.sha256()
        for one in made:
            digest.update(one.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def by_prompt(self, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """One value per picture as one row per prompt."""
        width = len(self.seeds)
        return [tuple(values[first : first + width]) for first in range(0, len(values), width)]

    def to_json(self) -> dict[str, Any]:
        return {
            "prompts": [prompt.to_json() for prompt in self.prompts],
            "seeds": list(self.seeds),
            "steps": self.steps,
            "guidance": self.guidance,
        }

    def _generated(
        self, pipe: Any, prompts: Sequence[str], seeds: Sequence[int], show: Progress, **more: Any
    ) -> tuple[Any, ...]:
        from efface.generating import generate

        return tuple(
            generate(
                pipe,
                list(prompts),
                list(seeds),
                steps=self.steps,
                guidance=self.guidance,
                batch_size=self.batch_size,
                progress=show,
                **more,
            )
        )
