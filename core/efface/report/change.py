"""How much a picture changed; whether for the better, it cannot say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image


def change(before: Image, after: Image) -> float:
    """Mean absolute difference over pixels and colour channels: 0 for equal pictures, 1 for black against white."""
    if before.size != after.size:
        raise ValueError(f"Pictures of {before.size} and {after.size} pixels cannot be compared")
    one, other = (np.asarray(image.convert("RGB"), dtype=np.int16) for image in (before, after))
    return float(np.abs(one - other).mean() / 255)


def changes(before: Sequence[Image], after: Sequence[Image]) -> tuple[float, ...]:
    """The change of every pair in order."""
    return tuple(change(one, other) for one, other in zip(before, after, strict=True))


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
