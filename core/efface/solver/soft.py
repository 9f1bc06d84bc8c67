"""The soft part of a solution, and the form in which a map is kept."""

from __future__ import annotations

import torch
from torch import Tensor

from efface.solver.metric import Metric
from efface.solver.problem import Problem
from efface_hooks.delta import Dense, LowRank


def soft_part(problem: Problem, metric: Metric) -> LowRank | Dense:
    """E_s = [sum_j w_j b_j c_j^T] G^-1 over the soft columns that ask for a change.

    Source: the normal equations; UCE (Gandikota et al., WACV 2024) eq. 7 is the case without `gram`.
    """
    m, d = problem.shape
    if problem.soft is None:
        return LowRank(torch.zeros(m, 0, dtype=torch.float64), torch.zeros(0, d, dtype=torch.float64))
    asking = problem.soft.asking
    change, inputs = asking.change * asking.mass, asking.inputs
    if thin_pays(len(asking), m, d):
        return balanced(change, metric.unwhiten(metric.whiten(inputs)).T)
    return Dense(metric.unwhiten(metric.whiten(inputs @ change.T)).T)


def balanced(up: Tensor, down: Tensor) -> LowRank:
    """up @ down with |up[:, k]| = |down[k]| for every k, so that half precision can hold both; no zero terms."""
    above, below = up.norm(dim=0), down.norm(dim=1)
    used = (above > 0) & (below > 0)
    ratio = (below[used] / above[used]).sqrt()
    return LowRank(up[:, used] * ratio, down[used] / ratio[:, None])


def thin_pays(rank: int, m: int, d: int) -> bool:
    return rank * (m + d) < m * d
