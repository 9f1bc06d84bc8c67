"""How much a picture changed outside of a region."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import max_pool2d

if TYPE_CHECKING:
    from PIL.Image import Image

MARGIN = 4


def dilated(regions: NDArray[np.bool_], margin: int = MARGIN) -> NDArray[np.bool_]:
    """Regions (n, H, W) grown by `margin` pixels in every direction, corners too."""
    if len(regions) == 0:
        return regions
    wide = max_pool2d(torch.from_numpy(regions).float()[:, None], 2 * margin + 1, stride=1, padding=margin)
    found: NDArray[np.bool_] = wide[:, 0].numpy() > 0
    return found


def change_outside(before: Image, after: Image, region: NDArray[np.bool_]) -> float | None:
    """Mean absolute difference over pixels outside of a region (H, W) and channels, 0..1; None if that is nowhere."""
    outside = ~region
    if not outside.any():
        return None
    one, other = (_pixels(image)[outside] for image in (before, after))
    return float(np.abs(one - other).mean() / 255)


def _pixels(image: Image) -> NDArray[Any]:
    return np.asarray(image.convert("RGB"), dtype=np.int16)
