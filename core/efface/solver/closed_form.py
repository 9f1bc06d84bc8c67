"""The solution in closed form: the soft part, then the cheapest correction that meets the hard columns."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from efface.solver.columns import Columns
from efface.solver.conflicts import KAPPA, Comparison, Policy, check_policy, merged, pair_error, rank_error
from efface.solver.metric import Metric
from efface.solver.problem import Problem
from efface.solver.report import Report, applied, norm, residual
from efface.solver.soft import balanced, thin_pays
from efface.solver.span import Span
from efface.solver.thinning import thinned
from efface_hooks.delta import Dense, LowRank


@dataclass(frozen=True, eq=False)
class Solution:
    """The map E in float64, as thin factors or whole, whichever costs less to apply, and what it achieves."""

    delta: LowRank | Dense
    report: Report


def solve(problem: Problem, conflicts: Policy = "raise", thin: float = 0.0) -> Solution:
    """The map E of a `Problem`, in float64 on the CPU.

    Hard columns that cannot all be met raise ConflictError; with `conflicts="least-squares"` they are met as
    nearly as possible (least sum of squared misses, then least cost) and the report names them. Close but not
    equal columns with different changes *can* be met, by an enormous E: damp them. SingularError names lamb
    where it is too small to determine E. `thin` is the relative error up to which the soft part may be kept in fewer
    factors (`thinned`); hard columns are met as they are without it.

    E = E_s + (B - E_s C) P, derived from the Lagrangian of the constrained problem.
    """
    check_policy(conflicts)
    pairs = () if problem.hard is None else Comparison.of(problem.hard).conflicts()
    if pairs and conflicts == "raise":
        raise pair_error(pairs)
    metric = Metric.of(problem)
    delta = thinned(problem, metric, thin)
    spans: list[Span] = []
    for columns, damping in _demands(problem):
        around = spans[0].left if spans else None
        span = Span.of(merged(Comparison.of(columns), problem.merge), metric, problem.rtol, around)
        if span.kappa > KAPPA and conflicts == "raise":
            raise rank_error(span)
        off = span.hard.change - applied(delta, span.hard.inputs)
        delta = _sum(delta, span.correction(off, damping))
        spans.append(span)
    return Solution(delta, _report(problem, metric, delta, spans, pairs))


def _demands(problem: Problem) -> list[tuple[Columns, float]]:
    """The hard columns to meet one lot after the other, each with its damping: damped ones around invariants.

    Derived: what is met first fixes E on its span, and the cost of the rest separates from it.
    """
    if problem.hard is None:
        return []
    asks = problem.hard.change.any(0)
    if not problem.damping or bool(asks.all()) or not bool(asks.any()):
        return [(problem.hard, problem.damping if bool(asks.any()) else 0.0)]
    return [(problem.hard.part(~asks), 0.0), (problem.hard.part(asks), problem.damping)]


def _sum(one: LowRank | Dense, other: LowRank) -> LowRank | Dense:
    """One map, thin while that costs less."""
    if isinstance(one, LowRank) and thin_pays(one.rank + other.rank, *one.shape):
        return balanced(torch.cat([one.up, other.up], 1), torch.cat([one.down, other.down], 0))
    return Dense(one.dense() + other.dense())


def _report(
    problem: Problem,
    metric: Metric,
    delta: LowRank | Dense,
    spans: list[Span],
    pairs: tuple[tuple[str, str], ...],
) -> Report:
    return Report(
        rank=sum(span.rank for span in spans),
        dropped=sum(len(span.hard) - span.rank for span in spans),
        kappa=spans[-1].kappa if spans else 0.0,
        conflicts=pairs,
        hard_residual=_residuals(delta, problem.hard),
        soft_residual=_residuals(delta, problem.soft),
        leverage=0.0 if problem.hard is None else metric.leverage(problem.hard.inputs),
        condition=metric.condition,
        change_norm=norm(delta),
    )


def _residuals(delta: LowRank | Dense, columns: Columns | None) -> tuple[float, ...]:
    return () if columns is None else tuple(residual(delta, columns).tolist())
