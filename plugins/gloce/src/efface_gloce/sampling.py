"""The trajectories whose features a fit hears: which scheduler, how many steps, which timesteps count."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

import efface

SchedulerName = Literal["pipeline", "lms"]
Listener = Callable[[efface.HookPoint, Tensor, efface.Call], None]

NOISE = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type")


@dataclass(frozen=True)
class Window:
    """The timesteps from `first` down to `last`, both included."""

    first: float
    last: float

    def holds(self, timestep: Tensor) -> bool:
        return self.last <= float(timestep) <= self.first


@dataclass(frozen=True)
class Sampling:
    """How trajectories are made; features are heard at the timesteps of the window, after which they end.

    `height` and `width` are pixels, None for the model's own size.
    """

    window: Window
    steps: int = 20
    guidance: float = 7.5
    scheduler: SchedulerName = "pipeline"
    height: int | None = None
    width: int | None = None

    def check(self, pipe: Any) -> None:
        """EffaceError where a pipeline cannot make such trajectories."""
        self.schedule(pipe)
        for name in ("height", "width"):
            pixels = getattr(self, name)
            if pixels and pixels % pipe.vae_scale_factor:
                raise efface.BadSetting(
                    f"{name} ({pixels}) is not a multiple of {pipe.vae_scale_factor}, the pixels of one latent"
                )

    def schedule(self, pipe: Any, device: torch.device | str = "cpu") -> Any:
        """A fresh scheduler, its timesteps set; EffaceError where none of them lies in the window."""
        scheduler = _lms(pipe.scheduler.config) if self.scheduler == "lms" else _copy(pipe.scheduler)
        scheduler.set_timesteps(self.steps, device=device)
        if not any(self.window.holds(timestep) for timestep in scheduler.timesteps):
            spoken = ", ".join(f"{float(timestep):g}" for timestep in scheduler.timesteps)
            raise efface.BadSetting(
                f"No step of {type(scheduler).__name__} with {self.steps} steps is between the timesteps "
                f"{self.window.first:g} and {self.window.last:g}; they are: {spoken}"
            )
        return scheduler

    def calls(self, pipe: Any) -> int:
        """How often the U-Net is called for one batch of trajectories."""
        return sum(float(timestep) >= self.window.last for timestep in self.schedule(pipe).timesteps)

    def heard(self, pipe: Any) -> int:
        """In how many of these calls features are heard."""
        return sum(self.window.holds(timestep) for timestep in self.schedule(pipe).timesteps)


def trajectories(
    model: efface.Model,
    encoded: efface.Encoded,
    negative: efface.Encoded,
    noise: Tensor,
    sampling: Sampling,
    places: Sequence[efface.HookPoint],
    listener: Listener,
    generators: Sequence[torch.Generator] = (),
) -> Iterator[None]:
    """Denoise prompt i from noise i (n, C, h, w), guided away from `negative`, one step for each `next`.

    `listener(point, features, call)` hears the rows of the prompts alone, (n, T, D), at the steps of the window.
    `generators` are for a scheduler that draws noise on the way, one for each trajectory.
    """
    scheduler = sampling.schedule(model.pipe, model.device)
    guided = sampling.guidance != 1.0
    rows = _joined(negative, encoded) if guided else encoded
    count = len(noise)
    options = {"generator": list(generators)} if _draws(scheduler) and generators else {}
    latents = noise * scheduler.init_noise_sigma

    def hear(point: efface.HookPoint, features: Tensor, call: efface.Call) -> None:
        listener(point, features[-count:], call)

    for timestep in scheduler.timesteps:
        if float(timestep) < sampling.window.last:
            return
        given = scheduler.scale_model_input(latents, timestep)
        hearing = sampling.window.holds(timestep)
        with torch.no_grad(), model.record(places, hear) if hearing else contextlib.nullcontext():
            found = model.predict(torch.cat([given, given]) if guided else given, timestep, rows)
        if guided:
            without, found = found.chunk(2)
            found = without + sampling.guidance * (found - without)
        latents = scheduler.step(found, timestep, latents, return_dict=False, **options)[0]
        yield


def _lms(config: Any) -> Any:
    """Linear multistep over evenly spread timesteps, as in the published code, with the model's own noise."""
    from diffusers import LMSDiscreteScheduler

    return LMSDiscreteScheduler(**{name: config[name] for name in NOISE if name in config})


def _copy(scheduler: Any) -> Any:
    return type(scheduler).from_config(scheduler.config)


def _draws(scheduler: Any) -> bool:
    return "generator" in inspect.signature(scheduler.step).parameters


def _joined(one: efface.Encoded, other: efface.Encoded) -> efface.Encoded:
    """The rows of two encodings, one after the other."""
    pooled = None if one.pooled is None or other.pooled is None else torch.cat([one.pooled, other.pooled])
    both = {
        name: torch.cat([getattr(one, name), getattr(other, name)])
        for name in ("hidden", "ids", "start", "stop", "end")
    }
    return replace(one, prompts=(*one.prompts, *other.prompts), pooled=pooled, **both)
