"""What the hard columns span, and the cheapest correction within it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from efface.solver.columns import Columns
from efface.solver.metric import Metric
from efface_hooks.delta import LowRank


@dataclass(frozen=True, eq=False)
class Span:
    """Z = L^-1 C = U diag(sigma) V^T for hard columns C (d, n) with changes B (m, n), small directions left out.

    Z^T Z is never formed: that would square the condition number. `around` (d, k) is an orthonormal basis that is
    taken out of Z first: a correction then leaves alone whatever lies in it. Derived.
    """

    hard: Columns
    metric: Metric
    left: Tensor
    sigma: Tensor
    right: Tensor

    @classmethod
    def of(cls, hard: Columns, metric: Metric, rtol: float | None, around: Tensor | None = None) -> Self:
        """The span with singular values above rtol sigma_1; None stands for ten roundings per dimension."""
        white = metric.whiten(hard.inputs)
        scale = white.norm(dim=0).max()
        if around is not None:
            white = white - around @ (around.T @ white)
        left, sigma, right = torch.linalg.svd(white, full_matrices=False)
        if rtol is None:
            rtol = max(hard.inputs.shape) * 2.2e-15
        kept = sigma > rtol * torch.maximum(sigma[0], scale)
        return cls(hard, metric, left[:, kept], sigma[kept], right[kept].T)

    @property
    def rank(self) -> int:
        return len(self.sigma)

    @cached_property
    def misfit(self) -> Tensor:
        """|B (I - V V^T)| of each column (n,): the part of its change that no map reaches."""
        change = self.hard.change
        if self.rank == len(self.hard):
            return change.new_zeros(self.rank)
        missed: Tensor = (change - (change @ self.right) @ self.right.T).norm(dim=0)
        return missed

    @property
    def kappa(self) -> float:
        """|B (I - V V^T)|_F / |B|_F: 0 where all columns can be met exactly."""
        asked = float(self.hard.change.norm())
        return float(self.misfit.norm()) / asked if asked else 0.0

    def correction(self, off: Tensor, damping: float) -> LowRank:
        """off P with P = V f(sigma) U^T L^-1 for what is still off, (m, n).

        f = 1/sigma, or damped sigma / (sigma^2 + (damping sigma_1)^2). One factor per direction, or per column
        that is off, whichever are fewer.
        """
        floor = damping * self.sigma[0] if self.rank else 0.0
        gain = self.right * (self.sigma / (self.sigma.square() + floor**2))
        moved = off.any(0)
        if int(moved.sum()) < self.rank:
            return LowRank(off[:, moved], self.metric.unwhiten(self.left @ gain[moved].T).T)
        return LowRank(off @ gain, self.metric.unwhiten(self.left).T)
