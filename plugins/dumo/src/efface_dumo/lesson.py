"""What one step learns from: rows to erase, rows to retain, and what the prediction should be for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from efface_dumo.bank import Draw
from efface_dumo.conditions import Conditions, Prompts, rows_of
from efface_dumo.halves import Features
from efface_dumo.student import Student


@dataclass(frozen=True)
class Lesson:
    """A batch with the frozen encoder's features of it; the first `erased` rows are erased, the others retained.

    `target` (B, C, h, w) is what the edited model should predict.
    """

    sample: Tensor
    timestep: Tensor
    conditions: Conditions
    features: Features
    target: Tensor
    erased: int

    def rows(self, rows: Tensor, erased: int) -> Lesson:
        """Some of its rows, the first `erased` of which are to erase."""
        return Lesson(
            self.sample[rows],
            self.timestep[rows],
            self.conditions[rows],
            self.features.rows(rows),
            self.target[rows],
            erased,
        )

    @staticmethod
    def joined(parts: Sequence[Lesson]) -> Lesson:
        """Several lessons as one, row after row; only the first ones may have rows to erase."""
        return Lesson(
            torch.cat([part.sample for part in parts]),
            torch.cat([part.timestep for part in parts]),
            rows_of(*(part.conditions for part in parts)),
            Features.joined([part.features for part in parts]),
            torch.cat([part.target for part in parts]),
            sum(part.erased for part in parts),
        )

    def losses(self, prediction: Tensor) -> tuple[Tensor, Tensor]:
        """L_erase and L_retain: mean squared errors of the two parts; 0 for an empty one."""
        squared = (prediction.float() - self.target).square()
        return _mean(squared[: self.erased]), _mean(squared[self.erased :])


def erase_target(anchor: Tensor, concept: Tensor, eta: float) -> Tensor:
    """e0 - eta (e* - e0): from the anchor's prediction on, away from the concept's (ESD's objective)."""
    return anchor - eta * (concept - anchor)


@torch.no_grad()
def lesson(student: Student, erased: Draw, kept: Draw, prompts: Prompts, eta: float) -> Lesson:
    """Targets from the frozen U-Net: the anchor's for erased rows, the prompt's own for retained ones.

    Teacher and student share the encoder's features, which are computed once for all rows.
    """
    count = len(erased.inputs)
    sample = torch.cat([erased.inputs, kept.inputs])
    timestep = torch.cat([erased.timesteps, kept.timesteps])
    conditions = rows_of(prompts.erased[erased.prompts], prompts.kept[kept.prompts])
    features = student.features(sample, timestep, conditions)
    anchors = student.features(erased.inputs, erased.timesteps, prompts.anchors[erased.prompts])
    needed = features if eta else features.rows(slice(count, None))
    taught = student.decoded(Features.joined([anchors, needed])).float()
    anchor, own = taught[:count], taught[count:]
    away = erase_target(anchor, own[:count], eta) if eta else anchor
    return Lesson(sample, timestep, conditions, features, torch.cat([away, own[count:] if eta else own]), count)


def _mean(squared: Tensor) -> Tensor:
    return squared.mean() if len(squared) else squared.new_zeros(())
