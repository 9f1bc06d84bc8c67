"""How far two sets of pictures are apart, by the kernel of KID (Bińkowski et al., ICLR 2018)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from efface.evaluation.intervals import Numbers, bootstrapped, multiplicities
from efface.evaluation.scores import Estimate

DEGREE = 3
USUAL = 50
FEWEST = 5

Features = NDArray[np.float64]


def kid(one: Features, other: Features) -> float:
    """The unbiased squared maximum mean discrepancy of features (n, D) and (m, D); about 0 for one distribution."""
    return float(_kid(_Set(one), _Set(other))[0])


def relative_distance(pictures: Features, own: Features, more: Features) -> Estimate | None:
    """How far `pictures` are from `own`, relative to how far sets of the kind that `own` and `more` are of are apart.

    sqrt(1 + KID(pictures, own) / (2 v / 50)). The squared discrepancy of two sets of 50 pictures of one kind is
    2 v / 50 on average, v being the kernel's variance among such pictures (here among own and more together), and that
    of sets of two kinds is larger by their KID. So 1 is as near as the kind's own sets are to each other, 2 is twice as
    far, and the number of pictures only makes it more certain. A ratio of KIDs would be 0 / 0 where nothing is wrong.
    A KID below 0, which chance brings about, counts as 0. Bootstrap over pictures, none of them paired with its copy.
    None for fewer than five pictures, and where own and more are all alike.
    """
    if min(len(pictures), len(own), len(more)) < FEWEST:
        return None
    value = _ratio(_Set(pictures), _Set(own), _Set(np.concatenate([own, more])))
    if not np.isfinite(value[0]):
        return None
    drawn = [multiplicities(len(each), stream) for stream, each in enumerate((pictures, own, more))]
    resampled = _ratio(
        _Set(pictures, drawn[0]),
        _Set(own, drawn[1]),
        _Set(np.concatenate([own, more]), np.concatenate(drawn[1:], axis=1)),
    )
    return bootstrapped(float(value[0]), resampled, len(pictures))


class _Set:
    """Features (n, D) in R versions: in each of them a row counts as often as the weights (R, n) say.

    `within` is the mean kernel of two different pictures, `variance` what that of a picture with itself has more; NaN
    for a version that is one picture over and over.
    """

    def __init__(self, features: Features, weights: Numbers | None = None) -> None:
        self.features = features
        self.weights = np.ones((1, len(features))) if weights is None else weights
        gram = _kernel(features, features)
        total, squares, diagonal = self.weights.sum(1), self.weights**2, np.diag(gram)
        pairs = total**2 - squares.sum(1)
        found = ((self.weights @ gram) * self.weights).sum(1) - squares @ diagonal
        self.within: Numbers = found / np.where(pairs > 0, pairs, np.nan)
        self.variance: Numbers = self.weights @ diagonal / total - self.within


def _ratio(pictures: _Set, own: _Set, pooled: _Set) -> Numbers:
    usual = 2 * pooled.variance / USUAL
    ratio: Numbers = np.sqrt(1 + np.maximum(_kid(pictures, own), 0) / np.where(usual > 0, usual, np.nan))
    return ratio


def _kid(one: _Set, other: _Set) -> Numbers:
    found: Numbers = one.within + other.within - 2 * _across(one, other)
    return found


def _across(one: _Set, other: _Set) -> Numbers:
    gram = _kernel(one.features, other.features)
    found: Numbers = ((one.weights @ gram) * other.weights).sum(1) / (one.weights.sum(1) * other.weights.sum(1))
    return found


def _kernel(one: Features, other: Features) -> Features:
    """(x . y / D + 1)^3 for every pair."""
    gram: Features = (one @ other.T / one.shape[1] + 1) ** DEGREE
    return gram
