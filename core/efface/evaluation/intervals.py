"""Rates, differences of rates and means, each with its 95 % interval; None from nothing."""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from efface.evaluation.scores import Estimate

LEVEL = 0.95
Z = NormalDist().inv_cdf((1 + LEVEL) / 2)
RESAMPLES = 2000

Flags = NDArray[np.bool_]
Numbers = NDArray[np.float64]


def rate(shown: Flags) -> Estimate | None:
    """The share of True, with the score interval of Wilson (JASA 1927)."""
    n = len(shown)
    if n == 0:
        return None
    share = float(shown.mean())
    centre = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    return Estimate(share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)), n)


def drop(before: Flags, after: Flags) -> Estimate | None:
    """The rate before minus the rate after, of the same pictures.

    The interval of Agresti and Min (Statistics in Medicine 2005) for matched pairs: Wald's, with half a pair more in
    each of the four cells of the table. It never has zero width.
    """
    n = len(before)
    if n == 0:
        return None
    lost, gained = float((before & ~after).sum()), float((~before & after).sum())
    centre = (lost - gained) / (n + 2)
    half = Z * sqrt(lost + gained + 1 - (lost - gained) ** 2 / (n + 2)) / (n + 2)
    return Estimate((lost - gained) / n, max(-1.0, centre - half), min(1.0, centre + half), n)


def mean(values: Numbers) -> Estimate | None:
    """The mean of values from 0 to 1, with a percentile bootstrap; one value alone says nothing of its interval."""
    n = len(values)
    if n == 0:
        return None
    if n == 1:
        return Estimate(float(values[0]), 0.0, 1.0, 1)
    return bootstrapped(float(values.mean()), multiplicities(n) @ values / n, n)


def multiplicities(n: int, stream: int = 0) -> Numbers:
    """How often each of n things is drawn when n are drawn with replacement, (RESAMPLES, n); always the same."""
    generator = np.random.default_rng((stream, n))
    return generator.multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(np.float64)


def bootstrapped(value: float, resampled: Numbers, n: int) -> Estimate:
    """A value with the percentile interval of what resamples gave (Efron 1979); those that gave none are left out."""
    tails: NDArray[Any] = np.quantile(resampled[np.isfinite(resampled)], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, min(value, float(tails[0])), max(value, float(tails[1])), n)
