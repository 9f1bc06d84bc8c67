"""FID and KID on sets whose distance is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from efface.evaluation.kernel import kid as unbiased
from efface_judges.distances import fid, kid
from efface_judges.errors import BadPictures


def whitened(n: int, width: int, seed: int = 0) -> NDArray[np.float64]:
    """Features with mean 0 and covariance 1 exactly, so that a Fréchet distance of images of them is exact too."""
    drawn = np.random.default_rng(seed).standard_normal((n, width))
    centred = drawn - drawn.mean(0)
    root = np.linalg.cholesky(np.linalg.inv(np.cov(centred, rowvar=False)))
    return centred @ root


def test_fid_of_shifted_and_stretched_gaussians_is_the_formulas() -> None:
    features, shift = whitened(200, 6), np.array([1.0, -2, 0, 0, 0.5, 0])
    stretch = np.array([1.0, 1, 2, 3, 1, 0.5])
    expected = (shift**2).sum() + ((stretch - 1) ** 2).sum()
    assert fid(features, features * stretch + shift) == pytest.approx(expected, rel=1e-6)


def test_fid_of_a_set_and_itself_is_0() -> None:
    features = whitened(100, 5)
    assert fid(features, features) == pytest.approx(0, abs=1e-6)


def test_fid_does_not_mind_the_order_of_sets() -> None:
    one, other = whitened(50, 4, seed=1) * 2, whitened(80, 4, seed=2) + 1
    assert fid(one, other) == pytest.approx(fid(other, one), rel=1e-9)


def test_kid_of_whole_sets_is_the_unbiased_estimate() -> None:
    one, other = whitened(40, 3, seed=1), whitened(40, 3, seed=2) + 0.5
    mean, deviation = kid(one, other)
    assert mean == pytest.approx(unbiased(one, other), rel=1e-9)
    assert deviation == pytest.approx(0, abs=1e-9)


def test_kid_is_0_between_sets_of_one_kind_and_grows_with_their_distance() -> None:
    generator = np.random.default_rng(3)
    one, other = generator.standard_normal((2, 300, 4))
    alike, near, far = (kid(one, other + shift)[0] for shift in (0, 0.5, 1.0))
    assert abs(alike) < 0.02
    assert 0.1 < near < far


def test_subsets_go_by_the_seed_and_leave_the_generator_alone() -> None:
    one, other = whitened(60, 3, seed=1), whitened(40, 3, seed=2)
    before = torch.get_rng_state()
    assert kid(one, other, seed=1) == kid(one, other, seed=1) != kid(one, other, seed=2)
    assert torch.equal(torch.get_rng_state(), before)


def test_one_picture_is_no_set() -> None:
    for distance in (fid, kid):
        with pytest.raises(BadPictures, match="needs two pictures in each, not 1 and 5"):
            distance(np.ones((1, 3)), np.ones((5, 3)))  # type: ignore[operator]
