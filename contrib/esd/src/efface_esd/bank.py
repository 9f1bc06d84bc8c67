"""What is learnt from: noisy latents on the way from noise to picture, and what to predict there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import efface

Predict = Callable[[Tensor, Tensor, efface.Encoded], Tensor]


@dataclass(frozen=True)
class Bank:
    """Latents (k, C, h, w) at timesteps (k,), each under the prompt of that row of `Prompts`."""

    latents: Tensor
    timesteps: Tensor
    prompts: Tensor

    def drawn(self, count: int, generator: torch.Generator) -> Bank:
        rows = torch.randint(len(self.prompts), (count,), generator=generator)
        return Bank(self.latents[rows], self.timesteps[rows], self.prompts[rows])


@dataclass(frozen=True)
class Prompts:
    """Row by row what is erased, and what the guidance away from it starts at."""

    erased: efface.Encoded
    start: efface.Encoded

    @classmethod
    def of(cls, model: efface.Model, request: efface.Request, anchored: bool) -> Prompts:
        pairs = [
            (prompt, start if anchored else "")
            for concept in request.concepts
            for phrase in concept.phrases
            for prompt, start in zip(request.prompts(phrase), request.prompts(concept.anchor or ""), strict=True)
        ]
        return cls(model.encode([prompt for prompt, _ in pairs]), model.encode([start for _, start in pairs]))


def rows(encoded: efface.Encoded, places: Tensor) -> efface.Encoded:
    """Some rows of encoded prompts, any of them more than once."""
    return efface.Encoded(
        prompts=tuple(encoded.prompts[place] for place in places.tolist()),
        hidden=encoded.hidden[places],
        ids=encoded.ids[places],
        start=encoded.start[places],
        stop=encoded.stop[places],
        end=encoded.end[places],
        pooled=None if encoded.pooled is None else encoded.pooled[places],
    )


def target(start: Tensor, erased: Tensor, negative: float) -> Tensor:
    """e(x_t) - eta (e(x_t, c) - e(x_t)): eq. 6 of the paper, both predictions by the base model."""
    return start - negative * (erased - start)


def walked(
    model: efface.Model, encoded: efface.Encoded, noise: Tensor, *, steps: int, guidance: float, until: int
) -> tuple[Tensor, Tensor]:
    """Latents (k, n, C, h, w) and timesteps (k, n) that the U-Net sees on the way from noise to timestep `until`."""
    latents: list[Tensor] = []
    timesteps: list[Tensor] = []

    def listen(_point: efface.HookPoint, _output: Tensor, call: efface.Call) -> None:
        latents.append(call.sample.clone())
        timesteps.append(call.timestep.clone())

    with model.record(model.points("mid"), listen):
        model.denoise(encoded, noise, steps=steps, guidance=guidance, until=until)
    passes = 1 if guidance == 1.0 else 2  # with guidance each step asks twice, with the prompt and without
    return torch.stack(latents[::passes]), torch.stack(timesteps[::passes])
