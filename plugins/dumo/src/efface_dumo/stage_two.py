"""Stage 2 trains the modulation (TLMO); the branch is frozen, so that its outputs are computed once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

import efface
from efface_dumo.halves import Features
from efface_dumo.lesson import Lesson
from efface_dumo.training import Banks, History, Training, descend, rate_at

if TYPE_CHECKING:
    from efface.checkpoint import State

STAGE = "table"


@dataclass(frozen=True)
class Cache:
    """A large lesson with the branch's outputs for it: all that the decoder's pass needs."""

    lesson: Lesson
    outputs: Features

    @classmethod
    def of(cls, training: Training, banks: Banks) -> Cache:
        """Rows of either kind as the settings say, spread over all timesteps and made a batch at a time."""
        size, batch = training.settings.table_cache, training.settings.batch
        given = [training.lesson(banks, min(batch, size - first), f"cache {first}") for first in range(0, size, batch)]
        erasing = [one.rows(torch.arange(one.erased), one.erased) for one in given]
        retaining = [one.rows(torch.arange(one.erased, len(one.sample)), 0) for one in given]
        parts = [*erasing, *retaining]
        with torch.no_grad(), training.accelerator.autocast():
            outputs = [training.student.outputs(one.sample, one.timestep, one.conditions) for one in parts]
        return cls(Lesson.joined(parts), Features.joined(outputs))

    def rows(self, erased: Tensor, kept: Tensor) -> tuple[Lesson, Features]:
        """A batch of some erased and some retained rows."""
        rows = torch.cat([erased, self.lesson.erased + kept])
        return self.lesson.rows(rows, len(erased)), self.outputs.rows(rows)


def train_modulation(training: Training, banks: Banks, checkpoint: efface.Checkpoint) -> History:
    """Train the student's modulation in place; the branch stays as it is.

    A row of the table that no timestep falls into keeps its start.
    """
    settings, modulation = training.settings, training.student.modulation
    modulation.requires_grad_(True)
    adam = torch.optim.Adam(modulation.parameters(), lr=settings.table_rate)
    optimizer = training.accelerator.prepare_optimizer(adam, device_placement=False)
    cache = Cache.of(training, banks)
    losses = _restored(training, optimizer, checkpoint.load())
    for step in range(len(losses.erase), settings.table_steps):
        _step(training, optimizer, cache, losses, step)
        training.tell(step + 1, settings.table_steps, STAGE, losses)
        if (step + 1) % settings.checkpoint_every == 0 or step + 1 == settings.table_steps:
            numbers = {f"modulation.{name}": tensor for name, tensor in modulation.state_dict().items()}
            training.save(checkpoint, optimizer, numbers, losses)
    modulation.requires_grad_(False)
    return losses


def _step(training: Training, optimizer: torch.optim.Optimizer, cache: Cache, losses: History, step: int) -> None:
    settings, student = training.settings, training.student
    given, outputs = cache.rows(*(_turn(training, side, step) for side in ("erased", "kept")))

    def loss() -> Tensor:
        changed = student.changed(given.features, outputs, given.timestep)
        erase, retain = given.losses(student.decoded(changed))
        losses.add(erase.detach(), retain.detach())
        return erase + settings.table_retain_weight * retain + settings.table_pull * pull(student.modulation)

    descend(training, optimizer, rate_at(step, settings.table_steps, settings.table_rate, settings.schedule), loss)
    if settings.table_positive and hasattr(student.modulation, "table"):
        with torch.no_grad():
            student.modulation.table.clamp_(min=0)


def pull(modulation: torch.nn.Module) -> Tensor:
    """Mean squared distance of a table from one; 0 for a modulation without a table."""
    table = getattr(modulation, "table", None)
    return torch.zeros(()) if table is None else (table - 1).square().mean()


def _turn(training: Training, side: str, step: int) -> Tensor:
    """The rows of one step: every cached row once in each round, in an order drawn per round."""
    size, batch = training.settings.table_cache, min(training.settings.batch, training.settings.table_cache)
    turns = size // batch
    if side == "kept":
        size, batch = (number * training.settings.retained for number in (size, batch))
    order = torch.randperm(size, generator=training.generator(f"table {side} {step // turns}"))
    return order[step % turns * batch :][:batch]


def _restored(training: Training, optimizer: torch.optim.Optimizer, found: State | None) -> History:
    if found is None:
        return History([], [])
    training.student.modulation.load_state_dict(found.part("modulation."))
    return training.restored(optimizer, found)
