"""The training of one concept: what both stages share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

import efface
from efface_dumo.bank import Bank, Draw, Sampler
from efface_dumo.conditions import Conditions, Prompts
from efface_dumo.lesson import Lesson, lesson
from efface_dumo.student import Student

if TYPE_CHECKING:
    from accelerate import Accelerator

    from efface.checkpoint import State
    from efface_dumo.dumo import DuMo

MILESTONES = 20
POINTS = 100


@dataclass
class Banks:
    """The erased prompts' trajectories and the kept ones'."""

    erased: Bank
    kept: Bank


@dataclass(frozen=True)
class Training:
    """One concept's training under some settings; `label` sets its random numbers apart from another concept's."""

    settings: DuMo
    student: Student
    prompts: Prompts
    sampler: Sampler
    accelerator: Accelerator
    run: efface.Run
    shape: tuple[int, ...]
    label: str

    @property
    def device(self) -> torch.device:
        return self.prompts.kept.text.device

    def generator(self, stream: str) -> torch.Generator:
        """Random numbers that depend on the seed, the concept and the stream alone."""
        return self.run.generator(stream=f"{self.label} {stream}")

    def noise(self, count: int, stream: str) -> Tensor:
        """Start noise (n, C, h, w), the same on every device."""
        return torch.randn((count, *self.shape), generator=self.generator(stream)).to(self.device)

    def banks(self, count: int, stream: str) -> Banks:
        """As many trajectories of erased prompts, and as many of kept ones, by the base model."""
        return Banks(*(self._bank(given, count, f"{stream} {what}") for what, given in self._sides()))

    def _sides(self) -> tuple[tuple[str, Conditions], tuple[str, Conditions]]:
        return ("erased", self.prompts.erased), ("kept", self.prompts.kept)

    def _bank(self, conditions: Conditions, count: int, stream: str) -> Bank:
        prompts = torch.arange(count) % len(conditions)
        self.run.progress(0, 1, f"{self.label}: latents, {stream}")
        inputs, timesteps = self.trajectories(conditions[prompts], stream, edited=False)
        self.run.progress(1, 1, f"{self.label}: latents, {stream}")
        return Bank(inputs, timesteps, prompts)

    def trajectories(self, conditions: Conditions, stream: str, *, edited: bool) -> tuple[Tensor, Tensor]:
        """The way of every prompt from fresh noise, by the model as it is edited now or by the base."""
        predict = self.student.edited if edited else self.student.plain
        noise = self.noise(len(conditions), stream)
        with torch.no_grad(), self.accelerator.autocast():
            return self.sampler.trajectories(noise, conditions, self.prompts.unconditional, predict)

    def lesson(self, banks: Banks, count: int, stream: str, *, retain: bool = True) -> Lesson:
        """`count` rows to erase and, if anything is retained, so many times as many to retain as the settings say."""
        generator = self.generator(stream)
        erased = self._timed(banks.erased.drawn(count, generator), generator)
        kept = self._timed(self._kept(banks, count * self.settings.retained if retain else 0, generator), generator)
        with self.accelerator.autocast():
            return lesson(self.student, erased, kept, self.prompts, self.settings.eta)

    def _kept(self, banks: Banks, count: int, generator: torch.Generator) -> Draw:
        """Kept prompts on their own latents and, for some rows, prompts on others' latents, a third of these each:

        the unconditional one on the erased concept's and on kept ones, which is what guidance asks of the model, and
        any kept prompt on any kept latents, because there are more prompts than trajectories.
        """
        part = round(count * self.settings.crossed / 3)
        own = banks.kept.drawn(count - 3 * part, generator)
        drawn = [bank.drawn(part, generator) for bank in (banks.erased, banks.kept, banks.kept)]
        empty = torch.zeros(part, dtype=torch.long)
        prompts = [empty, empty, torch.randint(len(self.prompts.kept), (part,), generator=generator)]
        return Draw.joined([own, *map(Draw.asked, drawn, prompts)])

    def _timed(self, draw: Draw, generator: torch.Generator) -> Draw:
        if not self.settings.jitter:
            return draw
        return draw.jittered(self.settings.sample_steps, self.student.train_timesteps, generator)

    def measured(self, banks: Banks) -> dict[str, float]:
        """Both losses on given trajectories, as many rows as the schedule has steps, the same rows every time."""
        count, found = len(banks.erased.timesteps), []
        for first in range(0, count, self.settings.batch):
            part = self.lesson(banks, min(self.settings.batch, count - first), f"held out {first}")
            with torch.no_grad(), self.accelerator.autocast():
                found.append([float(loss) for loss in part.losses(self.predicted(part))] + [part.erased])
        total = sum(rows for *_, rows in found)
        erase, retain = (sum(row[place] * row[2] for row in found) / total for place in (0, 1))
        return {"erase": rounded(erase), "retain": rounded(retain)}

    def predicted(self, given: Lesson) -> Tensor:
        """The edited model's prediction for a lesson, from the features it brings."""
        student = self.student
        outputs = student.outputs(given.sample, given.timestep, given.conditions)
        return student.decoded(student.changed(given.features, outputs, given.timestep))

    def save(
        self,
        checkpoint: efface.Checkpoint,
        optimizer: torch.optim.Optimizer,
        tensors: Mapping[str, Tensor],
        losses: History,
    ) -> None:
        """Keep a stage's own tensors, and the optimizer, the losses and the counters so far."""
        own = {f"optimizer.{name}": tensor for name, tensor in efface.optimizer_tensors(optimizer).items()}
        facts: dict[str, Any] = {"losses": losses.to_json(), "evaluations": dict(self.student.evaluations)}
        if self.accelerator.scaler is not None:
            facts["scaler"] = self.accelerator.scaler.state_dict()
        checkpoint.save({**tensors, **own}, facts)

    def restored(self, optimizer: torch.optim.Optimizer, found: State) -> History:
        """The losses of a checkpoint; its optimizer and counters are put back."""
        efface.restore_optimizer(optimizer, found.part("optimizer."))
        self.student.evaluations.clear()
        self.student.evaluations.update(found.facts["evaluations"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(found.facts["scaler"])
        return History(**found.facts["losses"])

    def tell(self, step: int, steps: int, what: str, losses: History) -> None:
        """Progress, with both losses as they stood at the last of twenty milestones."""
        size = max(1, steps // MILESTONES)
        last = step // size * size - 1
        said = "" if last < 0 else f"; erase {losses.erase[last]:.2g}, retain {losses.retain[last]:.2g}"
        self.run.progress(step, steps, f"{self.label}: {what}{said}")


@dataclass(frozen=True)
class History:
    """Both losses, step by step."""

    erase: list[float]
    retain: list[float]

    def add(self, erase: Tensor, retain: Tensor) -> None:
        self.erase.append(float(erase))
        self.retain.append(float(retain))

    def to_json(self) -> dict[str, Any]:
        return {"erase": self.erase, "retain": self.retain}

    def curve(self) -> dict[str, list[float]]:
        """At most a hundred points, each the mean over as many steps."""
        return {name: thinned(values) for name, values in self.to_json().items()}


def thinned(values: list[float]) -> list[float]:
    size = math.ceil(len(values) / POINTS) or 1
    parts = [values[first : first + size] for first in range(0, len(values), size)]
    return [rounded(sum(part) / len(part)) for part in parts]


def rounded(value: float) -> float:
    """Four significant digits: what a report is read for."""
    return float(f"{value:.4g}")


def rate_at(step: int, steps: int, rate: float, schedule: str) -> float:
    """The learning rate of a step: constant, or falling to nothing along half a cosine."""
    return rate if schedule == "constant" else rate * 0.5 * (1 + math.cos(math.pi * step / steps))


def descend(training: Training, optimizer: torch.optim.Optimizer, rate: float, loss: Callable[[], Tensor]) -> None:
    """One step down the gradient."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    with training.accelerator.autocast():
        found = loss()
    training.accelerator.backward(found)
    optimizer.step()
