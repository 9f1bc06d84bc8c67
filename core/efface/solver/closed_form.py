"""The solution in closed form: the soft part, then the cheapest correction that meets the hard columns."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from efface.solver.columns import Columns
from efface.solver.conflicts import KAPPA, Comparison, Policy, check_policy, merged, pair_error, rank_error
from efface.solver.metric import Metric
from efface.solver.problem import Problem
from efface.solver.report import Report, applied, residual
from efface.solver.span import Span
from efface_hooks.delta import Dense, LowRank


@dataclass(frozen=True, eq=False)
class Solution:
    """The map E in float64, as thin factors or whole, whichever costs less to apply, and what it achieves."""

    delta: LowRank | Dense
    report: Report


def solve(problem: Problem, conflicts: Policy = "raise") -> Solution:
    """The map E of a `Problem`, in float64 on the CPU.

    Hard columns that cannot all be met raise ConflictError; with `conflicts="least-squares"` they are met as
    nearly as possible (least sum of squared misses, then least cost) and the report names them. Close but not
    equal columns with different changes *can* be met, by an enormous E: damp them. SingularError names lamb
    where it is too small to determine E.

    E = E_s + (B - E_s C) P, derived from the Lagrangian of the constrained problem.
    """
    check_policy(conflicts)
    comparison = None if problem.hard is None else Comparison.of(problem.hard)
    pairs = () if comparison is None else comparison.conflicts()
    if pairs and conflicts == "raise":
        raise pair_error(pairs)
    metric = Metric.of(problem)
    delta = _soft_part(problem, metric)
    span = None
    if comparison is not None:
        span = Span.of(merged(comparison, problem.merge), metric, problem.rtol)
        if span.kappa > KAPPA and conflicts == "raise":
            raise rank_error(span)
        off = span.hard.change - applied(delta, span.hard.inputs)
        delta = _sum(delta, span.correction(off, problem.damping))
    return Solution(delta, _report(problem, metric, delta, span, pairs))


def _soft_part(problem: Problem, metric: Metric) -> LowRank | Dense:
    """E_s = [sum_j w_j b_j c_j^T] G^-1 over the soft columns that ask for a change.

    Source: the normal equations; UCE (Gandikota et al., WACV 2024) eq. 7 is the case without `gram`.
    """
    m, d = problem.shape
    if problem.soft is None:
        return LowRank(torch.zeros(m, 0, dtype=torch.float64), torch.zeros(0, d, dtype=torch.float64))
    asking = problem.soft.asking
    change, inputs = asking.change * asking.mass, asking.inputs
    if _thin_pays(len(asking), m, d):
        return _balanced(change, metric.unwhiten(metric.whiten(inputs)).T)
    return Dense(metric.unwhiten(metric.whiten(inputs @ change.T)).T)


def _sum(one: LowRank | Dense, other: LowRank) -> LowRank | Dense:
    """One map, thin while that costs less."""
    if isinstance(one, LowRank) and _thin_pays(one.rank + other.rank, *one.shape):
        return _balanced(torch.cat([one.up, other.up], 1), torch.cat([one.down, other.down], 0))
    return Dense(one.dense() + other.dense())


def _balanced(up: Tensor, down: Tensor) -> LowRank:
    """up @ down with |up[:, k]| = |down[k]| for every k, so that half precision can hold both; no zero terms."""
    above, below = up.norm(dim=0), down.norm(dim=1)
    used = (above > 0) & (below > 0)
    ratio = (below[used] / above[used]).sqrt()
    return LowRank(up[:, used] * ratio, down[used] / ratio[:, None])


def _thin_pays(rank: int, m: int, d: int) -> bool:
    return rank * (m + d) < m * d


def _report(
    problem: Problem,
    metric: Metric,
    delta: LowRank | Dense,
    span: Span | None,
    pairs: tuple[tuple[str, str], ...],
) -> Report:
    return Report(
        rank=0 if span is None else span.rank,
        dropped=0 if span is None else len(span.hard) - span.rank,
        kappa=0.0 if span is None else span.kappa,
        conflicts=pairs,
        hard_residual=_residuals(delta, problem.hard),
        soft_residual=_residuals(delta, problem.soft),
        leverage=0.0 if problem.hard is None else metric.leverage(problem.hard.inputs),
        condition=metric.condition,
        change_norm=float(delta.dense().norm()),
    )


def _residuals(delta: LowRank | Dense, columns: Columns | None) -> tuple[float, ...]:
    return () if columns is None else tuple(residual(delta, columns).tolist())
