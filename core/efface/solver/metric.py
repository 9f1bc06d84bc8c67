"""The price of a change: cost of E = tr(E G E^T)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from efface.solver.errors import SingularError
from efface.solver.problem import Problem

THIN = 0.25  # share of columns per dimension up to which a decomposition of the columns is cheaper than one of G


@dataclass(frozen=True, eq=False)
class Triangular:
    """G = L L^T with L lower triangular (d, d)."""

    lower: Tensor

    def whiten(self, columns: Tensor) -> Tensor:
        solved: Tensor = torch.linalg.solve_triangular(self.lower, columns, upper=False)
        return solved

    def unwhiten(self, columns: Tensor) -> Tensor:
        solved: Tensor = torch.linalg.solve_triangular(self.lower.T, columns, upper=True)
        return solved


@dataclass(frozen=True, eq=False)
class Thin:
    """G = floor^2 I + U s^2 U^T for few directions U (d, p), by its symmetric root: nothing of size d x d is formed.

    `shrink` (p,) is floor / sqrt(floor^2 + s^2) - 1, so that L^-1 = (I + U shrink U^T) / floor. Derived.
    """

    floor: float
    basis: Tensor
    shrink: Tensor

    def whiten(self, columns: Tensor) -> Tensor:
        return (columns + self.basis @ (self.shrink[:, None] * (self.basis.T @ columns))) / self.floor

    unwhiten = whiten


@dataclass(frozen=True, eq=False)
class Metric:
    """G = L L^T by its root L, which is thin where G is lamb I and little else."""

    root: Triangular | Thin
    condition: float
    """Largest over smallest eigenvalue of G: exact for a thin root, else a power-iteration estimate from below."""

    @classmethod
    def of(cls, problem: Problem) -> Metric:
        """G = lamb I + gram + keep_weight K K^T + sum_j w_j c_j c_j^T over the soft columns, factored.

        SingularError where a condition above 1 / (d eps) leaves no correct digit.
        Derived: the quadratic form of all soft terms.
        """
        _, d = problem.shape
        columns = _columns(problem)
        thin = problem.gram is None and columns.shape[1] <= THIN * d
        metric = _thin(columns, problem.lamb) if thin else _triangular(columns, problem)
        if metric is None or not metric.condition < 1 / (d * torch.finfo(torch.float64).eps):
            raise _singular(problem)
        return metric

    def whiten(self, columns: Tensor) -> Tensor:
        """L^-1 X."""
        return self.root.whiten(columns)

    def unwhiten(self, columns: Tensor) -> Tensor:
        """L^-T X, so that unwhiten(whiten(X)) = G^-1 X."""
        return self.root.unwhiten(columns)

    def leverage(self, columns: Tensor) -> float:
        """The largest c^T G^-1 c of the columns c: how far they stand out from what G knows.

        Derived: the ridge leverage score.
        """
        return float(self.whiten(columns).square().sum(0).max())


def energy(problem: Problem) -> float:
    """tr(G): how much there is that a change could disturb."""
    _, d = problem.shape
    gram = 0.0 if problem.gram is None else float(problem.gram.trace())
    return problem.lamb * d + gram + float(_columns(problem).square().sum())


def _columns(problem: Problem) -> Tensor:
    """K (d, p) with K K^T all of G but lamb I and gram."""
    _, d = problem.shape
    columns = [torch.zeros(d, 0, dtype=torch.float64)]
    if problem.keep is not None and problem.keep_weight:
        columns.append(problem.keep * problem.keep_weight**0.5)
    if problem.soft is not None:
        columns.append(problem.soft.inputs * problem.soft.mass.sqrt())
    return torch.cat(columns, 1)


def _thin(columns: Tensor, lamb: float) -> Metric | None:
    if lamb == 0:
        return None
    basis, sigma, _ = torch.linalg.svd(columns, full_matrices=False)
    largest = float(sigma.max()) ** 2 if len(sigma) else 0.0
    shrink = (lamb / (lamb + sigma.square())).sqrt() - 1
    return Metric(Thin(lamb**0.5, basis, shrink), (lamb + largest) / lamb)


def _triangular(columns: Tensor, problem: Problem) -> Metric | None:
    _, d = problem.shape
    gram = torch.zeros(d, d, dtype=torch.float64) if problem.gram is None else problem.gram.clone()
    gram.addmm_(columns, columns.T)
    gram.diagonal().add_(problem.lamb)
    lower, failed = torch.linalg.cholesky_ex(gram)
    return None if failed else Metric(Triangular(lower), _condition(lower))


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
