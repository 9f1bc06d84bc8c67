"""What became of a demand: the map of one module, and what is left to wish for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import efface
from efface.solver import Columns, Problem, Report, Solution, solve
from efface.solver.report import applied
from efface_erasepro.demand import Demand, Terms

Delta = efface.LowRank | efface.Dense
PROMISE = 1e-5  # the residual that counts as zero, where weights are float32


@dataclass(frozen=True, eq=False)
class Outcome:
    """The map E of a module, in float64, and what is to be said of it."""

    exact: Delta
    report: dict[str, Any]

    @property
    def delta(self) -> Delta:
        """E in float32, as an erasure keeps it also for models of half precision."""
        if isinstance(self.exact, efface.LowRank):
            return efface.LowRank(self.exact.up.float(), self.exact.down.float())
        return efface.Dense(self.exact.weight.float())

    def through(self, weight: Tensor) -> Delta:
        """W E in float32: what the output of a layer with weight W gains."""
        wide = weight.detach().to("cpu", torch.float64)
        if isinstance(self.exact, efface.LowRank):
            return efface.LowRank((wide @ self.exact.up).float(), self.exact.down.float())
        return efface.Dense((wide @ self.exact.weight).float())


def aligned(
    demand: Demand, problem: Problem, weights: Sequence[Tensor], dtype: torch.dtype, thin: float = 0.0
) -> Outcome:
    """All targets of a module onto their anchors, as nearly as they allow it together; `thin` is the solver's."""
    solution = solve(problem, "least-squares", thin)
    return Outcome(solution.delta, _report(solution, demand.erased, weights, dtype))


def closed(demand: Demand, terms: Terms, weights: Sequence[Tensor], dtype: torch.dtype) -> Outcome:
    """As many targets as the budget pays for exactly onto their anchors, for all that read the same features."""
    problem, found = demand.closing(terms)
    solution = solve(problem, "least-squares")
    met, price = found.met[len(demand.still) :], found.price[len(demand.still) :]
    return Outcome(
        solution.delta,
        _report(solution, demand.erased.part(met), weights, dtype)
        | {
            "exact": int(met.sum()),
            "softened": softened(demand.erased, met, price),
            "spent": float(found.price[found.met].sum()),
        },
    )


def softened(columns: Columns, met: Tensor, price: Tensor) -> dict[str, float | None]:
    """What exactness would have cost each column that is not met; None where no price buys it."""
    each = zip(columns.part(~met).labels, price[~met].tolist(), strict=True)
    return {label: cost if math.isfinite(cost) else None for label, cost in each}


def left_over(delta: Delta, columns: Columns, asked: Tensor, prompts: Tensor) -> list[float]:
    """For each prompt the share of the way `asked` (d, n) to its anchors that is left, over all its columns."""
    root = columns.mass.sqrt()
    missed = (applied(delta, columns.inputs) - columns.change).norm(dim=0) * root
    whole = asked.norm(dim=0) * root
    each = [prompts == row for row in range(int(prompts.max()) + 1)]
    return [_share(missed[mine], whole[mine]) for mine in each]


def residuals(weights: Sequence[Tensor], exact: Delta, columns: Columns, dtype: torch.dtype) -> dict[str, float]:
    """|W' x - W y|_F / |W y|_F over columns x that become y, at worst over the weights W that read them.

    `solved`: by the map in float64. `hooked`: by the float32 map, its result in the model's dtype, as a hook has it.
    `fused`: by W' itself, in the dtype of W.
    """
    anchors = columns.inputs + columns.change
    kept = Outcome(exact, {}).delta
    seen = (columns.inputs + applied(kept, columns.inputs)).to(dtype).double()
    each = {"solved": 0.0, "hooked": 0.0, "fused": 0.0}
    for weight in weights:
        wide = weight.detach().to("cpu", torch.float64)
        wanted = wide @ anchors
        found = {
            "solved": wide @ (columns.inputs + applied(exact, columns.inputs)),
            "hooked": wide @ seen,
            "fused": (wide + _changed(wide, kept)).to(weight.dtype).double() @ columns.inputs,
        }
        each = {name: max(each[name], _share(value - wanted, wanted)) for name, value in found.items()}
    return each


def relative_change(weights: Sequence[Tensor], delta: Delta) -> float:
    """|W E|_F / |W|_F, over all the weights W together."""
    wide = [weight.detach().to("cpu", torch.float64) for weight in weights]
    change = sum(float(_changed(weight, delta).square().sum()) for weight in wide)
    return float((change / sum(float(weight.square().sum()) for weight in wide)) ** 0.5)


def _report(solution: Solution, exact: Columns, weights: Sequence[Tensor], dtype: torch.dtype) -> dict[str, Any]:
    found = residuals(weights, solution.delta, exact, dtype)
    return _told(solution.report) | {
        "residual": found,
        "zero": max(found["hooked"], found["fused"]) <= PROMISE,
        "change": relative_change(weights, solution.delta),
        "dtype": str(weights[0].dtype).removeprefix("torch."),
    }


def _told(report: Report) -> dict[str, Any]:
    return {
        "rank": report.rank,
        "dropped": report.dropped,
        "out of reach": report.kappa,
        "conflicts": [list(pair) for pair in report.conflicts],
    }


def _changed(weight: Tensor, delta: Delta) -> Tensor:
    """W E for a float64 weight W."""
    if isinstance(delta, efface.LowRank):
        return (weight @ delta.up.double()) @ delta.down.double()
    return weight @ delta.weight.double()


def _share(part: Tensor, whole: Tensor) -> float:
    size = float(whole.norm())
    return float(part.norm()) / size if size else float(part.norm())
