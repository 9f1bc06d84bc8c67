"""The price of a change: cost of E = tr(E G E^T)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from efface.solver.errors import SingularError
from efface.solver.problem import Problem


@dataclass(frozen=True, eq=False)
class Metric:
    """G = L L^T by its root: L lower triangular (d, d), or the number sqrt(lamb) when G is lamb I."""

    root: Tensor | float
    condition: float
    """Largest over smallest eigenvalue of G: a power-iteration estimate, from below."""

    @classmethod
    def of(cls, problem: Problem) -> Metric:
        """G = lamb I + gram + keep_weight K K^T + sum_j w_j c_j c_j^T over the soft columns, factored.

        SingularError where a condition above 1 / (d eps) leaves no correct digit.
        Derived: the quadratic form of all soft terms.
        """
        gram = _gram(problem)
        if gram is None:
            if problem.lamb == 0:
                raise _singular(problem)
            return cls(problem.lamb**0.5, 1.0)
        root, failed = torch.linalg.cholesky_ex(gram)
        if failed:
            raise _singular(problem)
        condition = _condition(root)
        if not condition < 1 / (len(root) * torch.finfo(root.dtype).eps):
            raise _singular(problem)
        return cls(root, condition)

    def whiten(self, columns: Tensor) -> Tensor:
        """L^-1 X."""
        if isinstance(self.root, float):
            return torch.div(columns, self.root)
        solved: Tensor = torch.linalg.solve_triangular(self.root, columns, upper=False)
        return solved

    def unwhiten(self, columns: Tensor) -> Tensor:
        """L^-T X, so that unwhiten(whiten(X)) = G^-1 X."""
        if isinstance(self.root, float):
            return torch.div(columns, self.root)
        solved: Tensor = torch.linalg.solve_triangular(self.root.T, columns, upper=True)
        return solved

    def leverage(self, columns: Tensor) -> float:
        """The largest c^T G^-1 c of the columns c: how far they stand out from what G knows.

        Derived: the ridge leverage score.
        """
        return float(self.whiten(columns).square().sum(0).max())


def _gram(problem: Problem) -> Tensor | None:
    """G (d, d), or None when nothing but lamb I is left of it."""
    roots = []
    if problem.keep is not None and problem.keep_weight:
        roots.append(problem.keep * problem.keep_weight**0.5)
    if problem.soft is not None:
        roots.append(problem.soft.inputs * problem.soft.mass.sqrt())
    if not roots and problem.gram is None:
        return None
    _, d = problem.shape
    gram = torch.zeros(d, d, dtype=torch.float64) if problem.gram is None else problem.gram.clone()
    for root in roots:
        gram.addmm_(root, root.T)
    gram.diagonal().add_(problem.lamb)
    return gram


def _condition(root: Tensor) -> float:
    def apply(x: Tensor) -> Tensor:
        return root @ (root.T @ x)

    def invert(x: Tensor) -> Tensor:
        return torch.cholesky_solve(x, root)

    return _largest(apply, len(root)) * _largest(invert, len(root))


def _largest(apply: Callable[[Tensor], Tensor], d: int, steps: int = 8) -> float:
    """The largest eigenvalue of a symmetric positive map, by power iteration from a fixed start."""
    x = torch.randn(d, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for _ in range(steps):
        x = apply(x / x.norm())
    return float(x.norm())


def _singular(problem: Problem) -> SingularError:
    _, d = problem.shape
    return SingularError(
        f"lamb = {problem.lamb:g} is too small: together with it, the soft columns, keep and gram do not span "
        f"all {d} dimensions in float64, so the least change is not determined; raise lamb (and check that gram "
        "has no negative eigenvalues, or make columns of very large weight hard ones)"
    )
