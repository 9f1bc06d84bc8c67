"""The soft part in fewer factors: a map of thousands of dimensions that moves little is mostly a few directions."""

from __future__ import annotations

import torch
from torch import Tensor

from efface.solver.columns import Columns
from efface.solver.metric import Metric
from efface.solver.problem import Problem
from efface.solver.soft import balanced, soft_part, thin_pays
from efface_hooks.delta import Dense, LowRank

FIRST, MORE = 64, 16  # directions to look for at first, and beyond those that are wanted
ROUNDS = 2


def thinned(problem: Problem, metric: Metric, error: float) -> LowRank | Dense:
    """E_s in as few factors as keep |(E_s - E) L|_F within `error` times |E_s L|_F; E_s itself where none are saved.

    In this norm, with G = L L^T, an error weighs as much as what G knows moves by it. Derived: the best map of a rank
    in it is the truncated singular value decomposition of E_s L, times L^-1. It is found by a randomised range finder
    (Halko, Martinsson and Tropp, SIAM Review 2011) with a seed of its own.
    """
    if problem.soft is None or not error or thin_pays(len(problem.soft.asking), *problem.shape):
        return soft_part(problem, metric)
    few = _few(problem.soft.asking, metric, error)
    return soft_part(problem, metric) if few is None else few


def _few(asking: Columns, metric: Metric, error: float) -> LowRank | None:
    """The map of the columns within the error; None where it takes so many factors that they save nothing."""
    product = (asking.change * asking.mass) @ metric.whiten(asking.inputs).T  # E_s L
    energy = float(product.square().sum())
    count = FIRST
    while thin_pays(count, *asking.shape):
        left, values, right = _largest(product, count + MORE)
        missed = energy - values.square().cumsum(0)
        enough = (missed <= error**2 * energy).nonzero()
        if len(enough) and int(enough[0]) < count:
            rank = int(enough[0]) + 1
            return balanced(left[:, :rank] * values[:rank], metric.unwhiten(right[:, :rank]).T)
        count *= 2
    return None


def _largest(matrix: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """About the `count` largest singular values of a matrix (m, d) with their vectors: (m, k), (k,), (d, k)."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(matrix.shape[1], min(count, *matrix.shape), generator=generator, dtype=matrix.dtype)
    for _ in range(ROUNDS):
        basis = torch.linalg.qr(matrix.T @ torch.linalg.qr(matrix @ basis).Q).Q
    left, values, right = torch.linalg.svd(matrix @ basis, full_matrices=False)
    return left, values, basis @ right.T
