"""How good the detector is on rendered pictures that it never saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from efface_picturebook import gallery
from efface_picturebook.detector import SEEN, THINGS
from efface_picturebook.judge import Judge, Verdicts
from efface_picturebook.lesson import Lesson, exam

SEED = "held-out"
CLUTTER_EVERY = 5  # one picture without objects for so many scenes


@dataclass(frozen=True)
class Answers:
    """What is there and what was found: presences bool (n, 14), where they count, styles (n,), IoU (n, 12) or nan.

    `invented` (m,): whether anything was found in pictures of nothing.
    """

    there: NDArray[np.bool_]
    found: NDArray[np.bool_]
    counts: NDArray[np.bool_]
    style: NDArray[np.bool_]
    overlap: NDArray[np.float64]
    invented: NDArray[np.bool_]

    def recall(self, names: Sequence[str] = THINGS) -> NDArray[np.bool_]:
        """For every time one of these is there: whether it was found."""
        return self._where(self.there, names)

    def false_positives(self, names: Sequence[str] = THINGS) -> NDArray[np.bool_]:
        """For every time one of these is not there: whether it was found."""
        return self._where(~self.there, names)

    def iou(self, names: Sequence[str] = THINGS) -> float | None:
        """Mean intersection over union of the regions of what is there; None where nothing is."""
        overlaps = self.overlap[:, [THINGS.index(name) for name in names]]
        there = overlaps[~np.isnan(overlaps)]
        return float(there.mean()) if len(there) else None

    def _where(self, asked: NDArray[np.bool_], names: Sequence[str]) -> NDArray[np.bool_]:
        columns = [SEEN.index(name) for name in names]
        return self.found[:, columns][(asked & self.counts)[:, columns]]


def answers(judge: Judge, count: int) -> Answers:
    """Half of the pictures as drawn, half mildly distorted."""
    pictures = gallery.hang(gallery.scene(SEED, i) for i in range(count))
    half = count // 2
    source = torch.Generator().manual_seed(0)
    asked = [exam(pictures[:half]), exam(pictures[half:], source)]
    clutter = exam(gallery.clutter(SEED, count // CLUTTER_EVERY), source)
    judged = [judge.judged(one.pictures) for one in asked]
    return Answers(
        there=_column([one.presence for one in asked]) > 0,
        found=np.concatenate([one.presences for one in judged]) >= 0.5,
        counts=_column([one.counts for one in asked]) > 0,
        style=np.concatenate([one.styles.argmax(1) for one in judged]) == _column([one.style for one in asked]),
        overlap=np.concatenate([_overlaps(*pair) for pair in zip(asked, judged, strict=True)]),
        invented=judge.judged(clutter.pictures).presences.max(1) >= 0.5,
    )


def _overlaps(asked: Lesson, judged: Verdicts) -> NDArray[np.float64]:
    """Intersection over union of true and found regions, at 32 x 32; nan for what is not there."""
    true = asked.region.numpy() > 0.5
    size = true.shape[-1]
    blocks = judged.regions.reshape(*judged.regions.shape[:2], size, 2, size, 2).mean((3, 5)) >= 0.5
    union = (true | blocks).sum((2, 3))
    overlap = (true & blocks).sum((2, 3)) / np.maximum(union, 1)
    return np.where(asked.presence.numpy()[:, : len(THINGS)] > 0, overlap, np.nan)


def _column(parts: Sequence[torch.Tensor]) -> NDArray[np.float32]:
    joined: NDArray[np.float32] = torch.cat(list(parts)).numpy()
    return joined
