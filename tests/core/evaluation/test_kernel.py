"""Distances between sets of pictures are what the definition says, and the ratio says what it claims."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from efface.evaluation.kernel import kid, relative_distance


def drawn(count: int, seed: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 6)) + shift


def k(x: np.ndarray, y: np.ndarray) -> float:
    return float((x @ y / len(x) + 1) ** 3)


def among(x: np.ndarray) -> float:
    return float(np.mean([k(x[i], x[j]) for i in range(len(x)) for j in range(len(x)) if i != j]))


def between(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.mean([k(a, b) for a in x for b in y]))


def variance(x: np.ndarray) -> float:
    return float(np.mean([k(a, a) for a in x])) - among(x)


def test_kid_is_the_unbiased_discrepancy_with_a_cubic_kernel() -> None:
    x, y = drawn(5, 1), drawn(7, 2, shift=0.5)
    assert kid(x, y) == pytest.approx(among(x) + among(y) - 2 * between(x, y))


def test_the_ratio_is_the_one_of_the_definition() -> None:
    x, y, z = drawn(5, 1, shift=1), drawn(6, 2), drawn(7, 3)
    found = relative_distance(x, y, z)
    assert found is not None
    assert (found.value, found.n) == (pytest.approx((1 + kid(x, y) * 25 / variance(np.concatenate([y, z]))) ** 0.5), 5)


def test_twice_as_far_is_what_it_says() -> None:
    """The distance of the mean kernels of two sets of 50, on average over many such sets."""
    x, y = drawn(4000, 1, shift=0.3), drawn(4000, 2)
    sets = [slice(first, first + 50) for first in range(0, 4000, 50)]
    apart = np.mean([squared(x[one], y[one]) for one in sets])
    own = np.mean([squared(y[one], y[other]) for one, other in pairwise(sets)])
    found = relative_distance(x[:1000], y[:1000], y[1000:2000])
    assert found is not None
    assert found.value == pytest.approx((apart / own) ** 0.5, rel=0.05)


def squared(x: np.ndarray, y: np.ndarray) -> float:
    """The squared discrepancy of two sets as they are, copies among the pairs."""
    grams = [(one @ other.T / x.shape[1] + 1) ** 3 for one, other in ((x, x), (y, y), (x, y))]
    return float(grams[0].mean() + grams[1].mean() - 2 * grams[2].mean())


def test_pictures_of_the_same_kind_are_at_one() -> None:
    found = [relative_distance(drawn(50, s), drawn(50, s + 100), drawn(50, s + 200)) for s in range(20)]
    values = [one.value for one in found if one]
    assert min(values) == 1
    assert np.mean(values) == pytest.approx(1.1, abs=0.1)
    assert sum(one is not None and one.low == 1 for one in found) >= 18


def test_other_pictures_are_farther_and_the_interval_knows() -> None:
    near, far = (relative_distance(drawn(50, 1, shift), drawn(50, 2), drawn(50, 3)) for shift in (0.5, 1.0))
    assert near is not None
    assert far is not None
    assert 1 < near.low < near.value < far.low


def test_the_figure_does_not_grow_with_the_number_of_pictures() -> None:
    few, many = (
        np.mean(
            [
                one.value**2
                for seed in range(40)
                if (one := relative_distance(drawn(n, seed, 0.5), drawn(n, seed + 100), drawn(n, seed + 200)))
            ]
        )
        for n in (10, 50)
    )
    assert few == pytest.approx(many, rel=0.15)  # a ratio of biased distances would grow fivefold


def test_a_copy_of_a_picture_is_no_neighbour_of_it() -> None:
    few = relative_distance(drawn(8, 1), drawn(8, 2), drawn(8, 3))
    assert few is not None
    assert few.low < 1.5  # pairing copies would put every resample far away


def test_the_same_pictures_give_the_same_interval() -> None:
    sets = drawn(10, 1), drawn(10, 2), drawn(10, 3)
    assert relative_distance(*sets) == relative_distance(*(one.copy() for one in sets))


def test_there_is_no_figure_of_few_or_without_variance() -> None:
    assert relative_distance(drawn(4, 1), drawn(5, 2), drawn(5, 3)) is None
    assert relative_distance(drawn(5, 1), drawn(5, 2), drawn(4, 3)) is None
    assert relative_distance(drawn(5, 1), np.ones((5, 6)), np.ones((5, 6))) is None


def test_few_pictures_have_a_wide_interval() -> None:
    few, many = (relative_distance(drawn(n, 1, 1), drawn(n, 2), drawn(n, 3)) for n in (5, 50))
    assert few is not None
    assert many is not None
    assert few.high - few.low > 2 * (many.high - many.low)
