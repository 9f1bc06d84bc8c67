"""What is left to do under several maps put side by side, and what they do beyond that."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from efface.solver.columns import Columns
from efface.solver.report import applied
from efface_hooks import Delta


def left(deltas: Sequence[Delta], columns: Columns, owners: Tensor) -> list[float]:
    """For each owner 0, 1, ... of columns (n,) the share of its changes that the sum E of the maps misses.

    |E C - B| / |B| over all its columns together: 0 where every change is made, 1 where none is.
    """
    missed = _sum(deltas, columns.inputs) - columns.change
    each = [owners == owner for owner in range(int(owners.max()) + 1)]
    return [float(missed[:, mine].norm() / columns.change[:, mine].norm().clamp_min(1e-30)) for mine in each]


def drift(deltas: Sequence[Delta], inputs: Tensor) -> float:
    """|E K| / |K|: how far the sum E of the maps moves inputs (d, p) that should stay."""
    inputs = inputs.detach().to("cpu", torch.float64)
    return float(_sum(deltas, inputs).norm() / inputs.norm().clamp_min(1e-30))


def _sum(deltas: Sequence[Delta], inputs: Tensor) -> Tensor:
    return torch.stack([applied(delta, inputs) for delta in deltas]).sum(0)
