"""The bank of noisy latents that stage 2 trains on: made once, drawn from many times."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Generator, Tensor

import efface

SEEDS = 2**31


@dataclass(frozen=True, eq=False)
class LatentBank:
    """Inputs x_t of the U-Net (n, C, h, w) on the way from noise to a prompt, their t (n,) and prompts' rows (n,)."""

    latents: Tensor
    timesteps: Tensor
    rows: Tensor

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], device: torch.device) -> Self:
        """The bank that `tensors` told of."""
        return cls(tensors["latents"].to(device), tensors["timesteps"].to(device), tensors["rows"])

    @classmethod
    def joined(cls, parts: Sequence[LatentBank]) -> Self:
        return cls(*(torch.cat([getattr(part, one.name) for part in parts]) for one in fields(cls)))

    def __len__(self) -> int:
        return len(self.rows)

    def tensors(self) -> dict[str, Tensor]:
        return {"latents": self.latents, "timesteps": self.timesteps, "rows": self.rows}


@dataclass(frozen=True)
class Trajectories:
    """How the bank is made: `count` trajectories of `steps` guided steps, each kept at `times` of its timesteps."""

    count: int
    times: int
    steps: int
    guidance: float
    batch_size: int

    def bank(
        self, model: efface.Model, targets: efface.Encoded, generator: Generator, progress: Callable[[int, int], None]
    ) -> LatentBank:
        """The prompts of the concept, denoised by the model as it is now, with every edit that is on it.

        Source: the public port denoises the erased prompt with the edited model up to a random step, anew in every
        iteration; reconstruction: a bank of such points serves all iterations.
        """
        rows = torch.cat([torch.randperm(len(targets.prompts), generator=generator) for _ in range(self.count)])
        parts: list[LatentBank] = []
        for batch in torch.split(rows[: self.count], self.batch_size):
            progress(len(parts) * self.batch_size, self.count)
            parts.append(self._batch(model, targets, batch, generator))
        progress(self.count, self.count)
        return LatentBank.joined(parts)

    def _batch(self, model: efface.Model, targets: efface.Encoded, rows: Tensor, generator: Generator) -> LatentBank:
        seeds: Sequence[int] = torch.randint(SEEDS, (len(rows),), generator=generator).tolist()
        inputs, timesteps = self._inputs(model, targets.rows(rows.tolist()), model.noise(seeds))
        kept = self._strata(len(timesteps), generator)
        return LatentBank(
            torch.cat([inputs[place] for place in kept]),
            torch.cat([timesteps[place].expand(len(rows)) for place in kept]),
            rows.repeat(len(kept)),
        )

    def _inputs(self, model: efface.Model, targets: efface.Encoded, noise: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """What the U-Net is given at each timestep, once for each."""
        inputs: list[Tensor] = []
        timesteps: list[Tensor] = []

        def note(_point: efface.HookPoint, _output: Tensor, call: efface.Call) -> None:
            if not timesteps or call.timestep[0] != timesteps[-1]:
                inputs.append(call.sample.detach().clone())
                timesteps.append(call.timestep[0].clone())

        with model.record(["unet.mid"], note):
            model.denoise(targets, noise, steps=self.steps, guidance=self.guidance)
        return inputs, timesteps

    def _strata(self, count: int, generator: Generator) -> list[int]:
        """One place out of each of `times` equal parts of the way."""
        times = min(self.times, count)
        offset = torch.rand(times, generator=generator)
        return ((torch.arange(times) + offset) * count / times).long().clamp_max(count - 1).tolist()
