"""The shrink law: what noisy neighbours do to every feature that has nothing to do with the concept."""

from __future__ import annotations

from collections.abc import Sequence

import efface


def gain(near: float, beyond: float, ridge: float) -> float:
    """The factor by which the map multiplies a direction in which only noise lies.

    `near` and `beyond` are the noise variances of the neighbours and of the beyond-concept points in that direction,
    each times its weight in the objective; `ridge` is lamb. Derived: the normal equations in that direction read
    rho (near + beyond + ridge) = beyond + ridge.
    """
    held = beyond + ridge
    return held / (near + held) if near else 1.0


def check(near: Sequence[float], beyond: Sequence[float], ridge: float, least: float) -> float:
    """The least gain over the text encoders' parts; EffaceError where it is below `least`."""
    worst = min(gain(n, b, ridge) for n, b in zip(near, beyond, strict=True))
    if worst < least:
        raise efface.EffaceError(
            f"These neighbours would shrink every unrelated feature to {worst:.2f} of itself (least_gain is "
            f"{least:g}): raise beyond_weight or ridge, lower near_weight, or mine real phrases with sampler=snap"
        )
    return worst
