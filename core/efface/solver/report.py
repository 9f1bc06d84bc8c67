"""What a solution achieves, in numbers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from efface.solver.columns import Columns
from efface_hooks.delta import Dense, LowRank

STILL = 1e-5  # a change below this share of |c| is what float32 features leave of none


@dataclass(frozen=True)
class Report:
    """Numbers about one solution, all JSON."""

    rank: int
    """Independent directions among the hard columns, all of which E serves."""
    dropped: int
    """Hard columns, repetitions merged, that depend on the others."""
    kappa: float
    """Share of the demanded hard changes that no map can meet: 0 where all can be met exactly."""
    conflicts: tuple[tuple[str, str], ...]
    """Labels of collinear hard columns whose changes disagree."""
    hard_residual: tuple[float, ...]
    """`residual` of each hard column, in order, before any cast."""
    soft_residual: tuple[float, ...]
    """`residual` of each soft column, in order, before any cast."""
    leverage: float
    """Largest c^T G^-1 c of a hard column, 0 without any: alone and soft, with weight mu, it would miss
    1 / (1 + mu leverage) of its change."""
    condition: float
    """Condition number of G, estimated from below."""
    change_norm: float
    """|E|_F."""


def residual(delta: LowRank | Dense | Tensor, columns: Columns) -> Tensor:
    """How much of each change b the map E misses, (n,): |E c - b| / |b|, or / |c| for an invariant (b nearly zero).

    Computed in float64 from E as it is stored: after a cast it says what the cast costs.
    Derived: relative residual of a demand, relative drift of an invariant.
    """
    missed = (applied(delta, columns.inputs) - columns.change).norm(dim=0)
    asked = columns.change.norm(dim=0)
    given = columns.inputs.norm(dim=0)
    scale = torch.where(asked > STILL * given, asked, given)
    return torch.div(missed, torch.where(scale > 0, scale, 1))


def norm(delta: LowRank | Dense) -> float:
    """|E|_F; of thin factors U V by their triangular parts, without forming E."""
    if isinstance(delta, Dense):
        return float(_float64(delta.weight).norm())
    above, below = (torch.linalg.qr(_float64(factor)).R for factor in (delta.up, delta.down.T))
    return float((above @ below.T).norm())


def applied(delta: LowRank | Dense | Tensor, inputs: Tensor) -> Tensor:
    """E X in float64."""
    if isinstance(delta, LowRank):
        return _float64(delta.up) @ (_float64(delta.down) @ inputs)
    return _float64(delta.weight if isinstance(delta, Dense) else delta) @ inputs


def _float64(matrix: Tensor) -> Tensor:
    return matrix.detach().to("cpu", torch.float64)
