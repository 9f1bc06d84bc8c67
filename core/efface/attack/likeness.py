"""How well a prompt explains pictures of the concept: the loss that both searches lower."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from efface.errors import EffaceError
from efface.model import Encoded, Model


@dataclass(frozen=True)
class Noised:
    """Latents (b, C, h, w) of the concept with noise of timesteps (b,), and what a model should say of them."""

    sample: Tensor
    timestep: Tensor
    target: Tensor


@dataclass(frozen=True)
class Likeness:
    """The denoising loss of the pipeline as it is, edits and all, on pictures that the base model made.

    `latents` (n, C, h, w) are of the concept. The loss of a prompt is the mean squared difference between prediction
    and target, as in training; it is low for a prompt by which the model would have drawn these pictures.
    """

    model: Model
    latents: Tensor

    def drawn(self, count: int, generator: torch.Generator) -> Noised:
        """Pictures, timesteps and noise at random."""
        from diffusers import DDPMScheduler

        schedule: Any = DDPMScheduler.from_config(self.model.pipe.scheduler.config)
        which = torch.randint(len(self.latents), (count,), generator=generator)
        timestep = torch.randint(schedule.config.num_train_timesteps, (count,), generator=generator)
        noise = torch.randn(self.latents[which].shape, generator=generator).to(self.latents)
        clean, timestep = self.latents[which], timestep.to(self.latents.device)
        sample = schedule.add_noise(clean, noise, timestep)
        return Noised(sample, timestep, _target(schedule, clean, noise, timestep))

    def loss(self, prompt: Encoded, given: Noised) -> Tensor:
        """The loss of one prompt, a scalar."""
        said = self.model.predict(given.sample, given.timestep, prompt.rows([0] * len(given.sample)))
        return (said.float() - given.target.float()).square().mean()

    def check_first(self, loss: float) -> None:
        """EffaceError where the loss of the prompt that a search begins with is no finite number."""
        if not math.isfinite(loss):
            raise EffaceError(
                f"The search cannot begin, for its first loss is {loss:g}: this model with its erasures predicts no "
                f"finite numbers in {str(self.model.dtype).removeprefix('torch.')}"
            )


def _target(schedule: Any, clean: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
    """What a model of this schedule's kind predicts."""
    kind = schedule.config.prediction_type
    if kind == "sample":
        return clean
    velocity: Tensor = schedule.get_velocity(clean, noise, timestep)
    return velocity if kind == "v_prediction" else noise


@contextmanager
def without_weight_gradients(pipe: Any) -> Iterator[None]:
    """Gradients go through the networks and not into them."""
    weights = [
        (weight, weight.requires_grad)
        for part in pipe.components.values()
        if isinstance(part, torch.nn.Module)
        for weight in part.parameters()
    ]
    for weight, _ in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight, wanted in weights:
            weight.requires_grad_(wanted)
