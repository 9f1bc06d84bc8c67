"""What is computed from statistics: bases, means and the threshold, in float64."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from efface_gloce.moments import Spread

CERTAINTY = 0.99
STEEPNESS = 0.001
CLEAR_GAP = 1 + 1e-3
ROUNDING = 1e-6


@dataclass(frozen=True)
class Basis:
    """The first eigenvectors of a covariance, (D, r), and how clearly they stand out from the next: a ratio >= 1."""

    vectors: Tensor
    gap: float

    @property
    def is_clear(self) -> bool:
        """Whether the space they span is well defined."""
        return self.gap >= CLEAR_GAP

    def to(self, device: torch.device | str) -> Basis:
        return Basis(self.vectors.to(device), self.gap)


@dataclass(frozen=True)
class Target:
    """What one target's features give before the threshold: `update` (D, r1), `mean` (D), `gate_basis` (D, r3)."""

    update: Tensor
    mean: Tensor
    gate_basis: Tensor
    unclear: tuple[str, ...]


@dataclass(frozen=True)
class Own:
    """What one target's features give whatever the target becomes: V_tar, mu_tar (D) and V_gate."""

    basis: Basis
    mean: Tensor
    gate: Basis

    def to(self, device: torch.device | str) -> Own:
        return Own(self.basis.to(device), self.mean.to(device), self.gate.to(device))

    def becoming(self, map_basis: Tensor) -> Target:
        """The target with U = (I - V_tar V_tar^T) V_map."""
        update = map_basis - self.basis.vectors @ (self.basis.vectors.T @ map_basis)
        unclear = [name for name, basis in (("target", self.basis), ("gate", self.gate)) if not basis.is_clear]
        return Target(update, self.mean, self.gate.vectors, tuple(unclear))


def leading(covariance: Tensor, rank: int) -> Basis:
    """The eigenvectors of the largest eigenvalues; all of them where the rank exceeds the size."""
    values, vectors = torch.linalg.eigh(covariance)
    rank = min(rank, len(values))
    return Basis(vectors[:, -rank:].flip(1), _gap(values, rank))


def _gap(values: Tensor, rank: int) -> float:
    """The last eigenvalue taken over the next one, of ascending ones; what may be rounding of float32 sums is zero.

    1 where the last one taken is zero itself: any direction would have done.
    """
    rounding = ROUNDING * float(values[-1])
    last, following = float(values[-rank]), float(values[-rank - 1]) if rank < len(values) else 0.0
    if last <= rounding:
        return 1.0
    return last / following if following > rounding else math.inf


def target(features: Spread, map_basis: Tensor, centre: Tensor, rank: int, gate_rank: int) -> Target:
    """U, V_gate and the mean mu_tar of the target's features."""
    return own(features, centre, rank, gate_rank).becoming(map_basis)


def own(features: Spread, centre: Tensor, rank: int, gate_rank: int) -> Own:
    """V_tar, V_gate and mu_tar from the covariance C_tar and the mean mu_tar of the target's features.

    V_tar spans the leading eigenvectors of C_tar, V_gate those of its features' second moment about the centre m:
    C_tar + (mu_tar - m)(mu_tar - m)^T.
    """
    away = features.mean - centre
    gate = leading(features.covariance + torch.outer(away, away), gate_rank)
    return Own(leading(features.covariance, rank), features.mean, gate)


def threshold(peaks: Tensor, tau: float) -> Tensor:
    """c = mean + tau x standard deviation (unbiased, 0 of a single one) over all peaks of p on boundary pictures."""
    exact = peaks.double()
    return exact.mean() + tau * exact.std() if len(exact) > 1 else exact.mean()


def slope(tau: float) -> float:
    """k such that the gate is 99 % open at p = c + 0.001 tau."""
    return math.log(CERTAINTY / (1 - CERTAINTY)) / (STEEPNESS * tau)
