"""What each hard column costs, and which of them a budget can pay for."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from efface.solver.conflicts import SLACK, Comparison
from efface.solver.errors import BadProblem
from efface.solver.metric import Metric, energy
from efface.solver.problem import Problem
from efface.solver.report import applied
from efface.solver.soft import soft_part


@dataclass(frozen=True, eq=False)
class Prices:
    """For each hard column, (n,): whether it is met, and its `price`, what meeting it adds to the cost.

    Prices are shares of tr(G): by how much, in the mean square, everything that G knows moves for it. inf where no map
    can meet the column together with those met before it, or none that a close column would bear; 0 where it is met
    without being asked for.
    """

    met: Tensor
    price: Tensor


def prices(problem: Problem, budget: float = math.inf, metric: Metric | None = None) -> Prices:
    """Meets hard columns in their order, each as long as the prices of all so far stay within the budget.

    Columns that conflict with one that is met (as `solve` would refuse them) are not met whatever the budget. What is
    not met may be asked for softly instead: the rest of the hard columns then has no conflict. The metric of a problem
    that differs in its hard columns alone spares factoring it again.

    Derived: orthogonalised against the columns met before, column c with change b still to make costs
    |b|^2 / |L^-1 c|^2.
    """
    if problem.hard is None:
        raise BadProblem("Prices are asked for a Problem without hard columns")
    if math.isnan(budget) or budget < 0:
        raise BadProblem(f"The budget is {budget}, not a number >= 0")
    hard, metric, comparison = problem.hard, metric or Metric.of(problem), Comparison.of(problem.hard)
    off = hard.change - applied(soft_part(problem, metric), hard.inputs)
    rtol = max(hard.inputs.shape) * 2.2e-15 if problem.rtol is None else problem.rtol
    ledger = _Ledger(metric.whiten(hard.inputs), off, rtol)
    clashes, groups = comparison.clashes, comparison.groups(problem.merge)
    met = torch.zeros(len(hard), dtype=torch.bool)
    price = torch.zeros(len(hard), dtype=torch.float64)
    whole = energy(problem)
    left = budget * whole
    for group in groups:
        cost = math.inf if bool((clashes[group[0]] & met).any()) else ledger.cost(group[0])
        if cost <= left and cost < math.inf:
            ledger.meet(group[0])
            left -= cost
            met[group] = True
        price[group] = cost / whole
    return Prices(met, price)


class _Ledger:
    """The columns met so far: whitened and orthonormal (d, r), and what E does along each of them (m, r)."""

    def __init__(self, white: Tensor, change: Tensor, rtol: float) -> None:
        self.white, self.change, self.rtol = white, change, rtol
        most = min(white.shape)
        self._along = white.new_zeros(len(white), most)
        self._moves = change.new_zeros(len(change), most)
        self._count = 0

    def cost(self, index: int) -> float:
        direction, change = self._left(index)
        size, missing = float(direction.norm()), float(change.norm())
        if size > self.rtol * float(self.white[:, index].norm()):
            return (missing / size) ** 2
        return 0.0 if missing <= SLACK * float(self.change[:, index].norm()) else math.inf

    def meet(self, index: int) -> None:
        direction, change = self._left(index)
        size = float(direction.norm())
        if size > self.rtol * float(self.white[:, index].norm()):
            self._along[:, self._count] = direction / size
            self._moves[:, self._count] = change / size
            self._count += 1

    def _left(self, index: int) -> tuple[Tensor, Tensor]:
        """The column's own direction, and the change that the ones met before leave to it."""
        along, moves = self._along[:, : self._count], self._moves[:, : self._count]
        white = self.white[:, index]
        share = along.T @ white
        rest = white - along @ share
        return rest - along @ (along.T @ rest), self.change[:, index] - moves @ share
