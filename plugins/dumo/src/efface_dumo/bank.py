"""Latents to learn from, sampled from the model itself: whole trajectories, every step of which is kept."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from efface_dumo.conditions import Conditions, rows_of

Predict = Callable[[Tensor, Tensor, Conditions], Tensor]


@dataclass
class Bank:
    """`inputs` (N, S, C, h, w) as the U-Net gets them at `timesteps` (S,), and the prompt (N,) of each trajectory.

    The one thing that changes is `inputs`, when trajectories are replaced by fresh ones.
    """

    inputs: Tensor
    timesteps: Tensor
    prompts: Tensor

    def replace(self, rows: Tensor, inputs: Tensor) -> None:
        """Put fresh trajectories (n, S, C, h, w) of the same prompts in the place of old ones."""
        self.inputs[rows] = inputs

    def drawn(self, count: int, generator: torch.Generator) -> Draw:
        """Rows with trajectories at random and steps spread evenly, so that no part of the schedule is left out."""
        steps = len(self.timesteps)
        trajectories = torch.randint(len(self.prompts), (count,), generator=generator)
        spread = torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)
        places = (spread * steps / count).long().clamp(max=steps - 1)
        timesteps = self.timesteps[places.to(self.timesteps.device)]
        return Draw(self.inputs[trajectories, places], timesteps, self.prompts[trajectories])


@dataclass(frozen=True)
class Draw:
    """Rows of a batch: `inputs` (B, C, h, w), `timesteps` (B,) and `prompts` (B,), rows of some conditions."""

    inputs: Tensor
    timesteps: Tensor
    prompts: Tensor

    @staticmethod
    def joined(parts: Sequence[Draw]) -> Draw:
        """The rows of several draws."""
        return Draw(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Draw)))

    def asked(self, prompts: Tensor) -> Draw:
        """The same latents for other prompts."""
        return replace(self, prompts=prompts)

    def jittered(self, steps: int, train_timesteps: int, generator: torch.Generator) -> Draw:
        """With every timestep drawn from the one of `steps` equal intervals that it is in, as ESD does.

        t ~ U{floor(T j / S) .. floor(T (j + 1) / S) - 1}.
        """
        place = torch.div(self.timesteps.cpu() * steps, train_timesteps, rounding_mode="floor").long()
        low, high = (torch.div(train_timesteps * (place + end), steps, rounding_mode="floor") for end in (0, 1))
        within = (torch.rand(len(place), generator=generator) * (high - low)).long()
        return Draw(self.inputs, (low + within).clamp(0, train_timesteps - 1).to(self.timesteps.device), self.prompts)


@dataclass(frozen=True)
class Sampler:
    """How trajectories are made: scheduler, number of steps, guidance, and how many at a time.

    `scheduler` gives a fresh one with the settings of the pipeline's.
    """

    scheduler: Callable[[], Any]
    steps: int
    guidance: float
    batch: int

    def trajectories(
        self, noise: Tensor, conditions: Conditions, unconditional: Conditions, predict: Predict
    ) -> tuple[Tensor, Tensor]:
        """Every input (n, S, C, h, w) on the way of n prompts from their noise, and the timesteps (S,)."""
        made = []
        for first in range(0, len(noise), self.batch):
            rows = torch.arange(first, min(first + self.batch, len(noise)))
            inputs, timesteps = self._together(noise[rows], conditions[rows], unconditional, predict)
            made.append(inputs)
        return torch.cat(made), timesteps

    def _together(
        self, noise: Tensor, conditions: Conditions, unconditional: Conditions, predict: Predict
    ) -> tuple[Tensor, Tensor]:
        scheduler = self.scheduler()
        scheduler.set_timesteps(self.steps, device=noise.device)
        options = _options(scheduler)
        both = rows_of(unconditional[torch.zeros(len(noise), dtype=torch.long)], conditions)
        latents, inputs = noise * scheduler.init_noise_sigma, []
        for timestep in scheduler.timesteps:
            inputs.append(scheduler.scale_model_input(latents, timestep))
            if len(inputs) < len(scheduler.timesteps):
                prediction = self._guided(inputs[-1], timestep, conditions, both, predict)
                latents = scheduler.step(prediction, timestep, latents, return_dict=False, **options)[0]
        return torch.stack(inputs, 1), scheduler.timesteps

    def _guided(
        self, sample: Tensor, timestep: Tensor, conditions: Conditions, both: Conditions, predict: Predict
    ) -> Tensor:
        if self.guidance == 1.0:
            return predict(sample, timestep.expand(len(sample)), conditions).float()
        without, prompted = predict(torch.cat([sample] * 2), timestep.expand(2 * len(sample)), both).float().chunk(2)
        return without + self.guidance * (prompted - without)


def _options(scheduler: Any) -> dict[str, Any]:
    """For a scheduler that adds noise on the way, a generator that adds the same in every run."""
    takes = "generator" in inspect.signature(scheduler.step).parameters
    return {"generator": torch.Generator().manual_seed(0)} if takes else {}
