"""A region grows by its margin, and what changes inside of it does not count."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from efface.evaluation.regions import change_outside, dilated


def picture(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels.astype(np.uint8))


def test_a_region_grows_by_four_pixels_in_every_direction() -> None:
    regions = np.random.default_rng(0).random((3, 20, 30)) > 0.99
    wanted = [ndimage.binary_dilation(region, np.ones((9, 9))) for region in regions]
    assert (dilated(regions) == np.stack(wanted)).all()
    assert dilated(regions[:0]).shape == (0, 20, 30)


def test_only_what_is_outside_counts() -> None:
    before, after = np.zeros((2, 4, 3)), np.zeros((2, 4, 3))
    after[0, 0] = 255  # inside
    after[1, 3, 1] = 51  # one channel of one of six pixels outside
    region = np.array([[True, True, False, False], [False] * 4])
    assert change_outside(picture(before), picture(after), region) == pytest.approx(0.2 / (6 * 3))


def test_a_region_that_is_everywhere_leaves_nothing_to_measure() -> None:
    one = picture(np.zeros((2, 2, 3)))
    assert change_outside(one, one, np.ones((2, 2), dtype=bool)) is None
