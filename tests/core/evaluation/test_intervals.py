"""Intervals agree with scipy and with values by hand, and are never narrower than few pictures allow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from efface.evaluation.intervals import bootstrapped, drop, mean, multiplicities, rate
from efface.evaluation.scores import Estimate


def flags(true: int, false: int) -> np.ndarray:
    return np.array([True] * true + [False] * false, dtype=bool)


def pairs(both: int, lost: int, gained: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    before = flags(both + lost, gained + neither)
    after = np.concatenate([flags(both, lost), flags(gained, neither)])
    return before, after


def test_nothing_gives_no_figure() -> None:
    empty = np.zeros(0, dtype=bool)
    assert rate(empty) is None
    assert drop(empty, empty) is None
    assert mean(np.zeros(0)) is None


@given(st.integers(0, 60), st.integers(0, 60))
def test_a_rate_has_the_interval_of_wilson(true: int, false: int) -> None:
    if true + false == 0:
        return
    found = rate(flags(true, false))
    wanted = stats.binomtest(true, true + false).proportion_ci(0.95, "wilson")
    assert found is not None
    assert found.n == true + false
    assert found.value == pytest.approx(true / (true + false))
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=1e-12)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.high > found.low


def test_a_drop_has_the_interval_of_agresti_and_min() -> None:
    # 150 lost and 86 gained of 1,600: (64 -+ 1.959964 sqrt(150 + 86 + 1 - 64^2 / 1602)) / 1602
    found = drop(*pairs(794, 150, 86, 570))
    assert found is not None
    assert (found.value, found.n) == (0.04, 1600)
    assert (found.low, found.high) == pytest.approx((0.021217, 0.058683), abs=1e-6)


@given(st.tuples(*[st.integers(0, 40)] * 4))
def test_a_drop_lies_in_its_interval_which_has_a_width(cells: tuple[int, int, int, int]) -> None:
    found = drop(*pairs(*cells))
    if found is None:
        assert sum(cells) == 0
        return
    assert -1 <= found.low <= found.value <= found.high <= 1
    assert found.high > found.low


def test_a_gain_is_a_negative_drop() -> None:
    lost, gained = drop(*pairs(3, 5, 1, 2)), drop(*pairs(3, 1, 5, 2))
    assert lost is not None
    assert gained is not None
    assert (gained.value, gained.low, gained.high) == (-lost.value, -lost.high, -lost.low)


def test_pairs_count_as_pairs() -> None:
    steady, mixed = drop(*pairs(10, 0, 0, 10)), drop(*pairs(0, 10, 10, 0))
    assert steady is not None
    assert mixed is not None
    assert steady.value == mixed.value == 0
    assert mixed.high > 2 * steady.high


def test_a_mean_is_resampled_like_scipy_does_it() -> None:
    values = np.random.default_rng(0).random(40)
    found = mean(values)
    wanted = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=9999, rng=1).confidence_interval
    assert found is not None
    assert (found.value, found.n) == (values.mean(), 40)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=0.01)  # both draw at random


def test_the_same_numbers_have_the_same_interval() -> None:
    values = np.random.default_rng(0).random(7)
    assert mean(values) == mean(values.copy())


def test_one_value_alone_could_be_any_mean() -> None:
    assert mean(np.array([0.25])) == Estimate(0.25, 0.0, 1.0, 1)


def test_resampling_draws_as_many_as_there_are() -> None:
    drawn = multiplicities(6)
    assert (drawn.sum(1) == 6).all()
    assert drawn.mean(0) == pytest.approx(np.ones(6), abs=0.1)  # 2,000 draws
    assert (drawn != multiplicities(6, stream=1)).any()


def test_an_interval_holds_its_value_and_knows_no_failed_resamples() -> None:
    resampled = np.array([np.nan, *np.linspace(1, 2, 41)])
    found = bootstrapped(3.0, resampled, 5)
    assert (found.low, found.high) == (pytest.approx(1.025), 3.0)
