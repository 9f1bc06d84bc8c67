"""Hard columns prepared once, so that any few of them can be met later at the price of a small solve."""

from __future__ import annotations

import torch
from torch import Tensor

from efface.solver.columns import Columns, float64_matrix
from efface.solver.errors import BadProblem
from efface.solver.metric import Metric
from efface.solver.problem import Problem
from efface_hooks.delta import LowRank

DEPENDENT = 1e-10  # singular values of S, which are squares, below this share of the largest count as zero


def duals(problem: Problem, metric: Metric | None = None) -> Tensor:
    """H = G^-1 C (d, n) of the hard columns C, in float64; the metric is the problem's own if none is given.

    Derived: the least change that meets some of the columns lies in the span of their duals.
    """
    if problem.hard is None:
        raise BadProblem("Duals are asked for a Problem without hard columns")
    metric = metric or Metric.of(problem)
    return metric.unwhiten(metric.whiten(problem.hard.inputs))


def through_duals(columns: Columns, duals: Tensor) -> LowRank:
    """The map E = B S^+ H^T, S = H^T C, that meets these columns C with changes B, given their duals H (d, k).

    It is the one of least cost for the metric of the duals, and meets the columns as exactly for any other H, so that
    H may be kept in half the precision. k x k work, where `solve` factors a metric.
    """
    duals = float64_matrix("duals", duals)
    if duals.shape != columns.inputs.shape:
        raise BadProblem(f"duals have shape {tuple(duals.shape)}, their columns {tuple(columns.inputs.shape)}")
    pairing = duals.T @ columns.inputs
    down: Tensor = torch.linalg.pinv(pairing, rtol=DEPENDENT) @ duals.T
    return LowRank(columns.change, down)
