"""What is left to do under several maps put side by side, and what they do beyond that."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from efface.solver.columns import Columns
from efface.solver.report import applied
from efface_hooks import Delta


def left(deltas: Sequence[Delta], parts: Iterable[Columns], owners: Tensor) -> list[float]:
    """For each owner 0, 1, ... of the parts' columns (n,) the share of its changes that the sum E of maps misses.

    |E C - B| / |B| over all its columns together: 0 where every change is made, 1 where none is.
    """
    missed, asked = torch.zeros(2, int(owners.max()) + 1, dtype=torch.float64)
    first = 0
    for part in parts:
        own = owners[first : first + len(part)]
        missed.index_add_(0, own, (_sum(deltas, part.inputs) - part.change).square().sum(0))
        asked.index_add_(0, own, part.change.square().sum(0))
        first += len(part)
    return [float(share) for share in missed.sqrt() / asked.sqrt().clamp_min(1e-30)]


def drift(deltas: Sequence[Delta], inputs: Tensor) -> float:
    """|E K| / |K|: how far the sum E of the maps moves inputs (d, p) that should stay."""
    inputs = inputs.detach().to("cpu", torch.float64)
    return float(_sum(deltas, inputs).norm() / inputs.norm().clamp_min(1e-30))


def _sum(deltas: Sequence[Delta], inputs: Tensor) -> Tensor:
    return torch.stack([applied(delta, inputs) for delta in deltas]).sum(0)
