"""The sampler's moments in the limit of infinitely many draws: neighbours without sampling."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from efface_realera.window import Rays, Window

NODES = 24


@dataclass(frozen=True)
class Moments:
    """Moments of a perturbed embedding x that is symmetric around e: E[x] = along e / |e|, and

    E[x x^T] = along_square e e^T / |e|^2 + across_square (I - e e^T / |e|^2).
    """

    along: float
    along_square: float
    across_square: float


def isotropic_moments(norm: float, size: int, window: Window, noise: float | None = None) -> Moments:
    """The moments of `perturbation.isotropic` for an embedding of length `norm` in `size` dimensions.

    Derived: v splits into g along e and a part of length rho across it whose direction is uniform. Given g and rho
    the radius is uniform on a known interval, so its two moments are exact; over g (normal) and rho^2 / 2 (gamma)
    they are integrated by Gauss quadrature.
    """
    spread = norm / size**0.5 if noise is None else noise
    g, rho, weight = _nodes(spread, size)
    low, high = window.radii(_rays(norm, g, rho))
    rays = _rays(norm, torch.where(low < high, g, -g.abs()), rho)
    low, high = window.entered(rays)
    mean, square = (low + high) / 2, (low.square() + low * high + high.square()) / 3
    cos, sin = rays.angle.cos(), rays.angle.sin()
    along = norm + cos * mean
    along_square = norm**2 + 2 * norm * cos * mean + cos.square() * square
    across_square = sin.square() * square / (size - 1)
    return Moments(*(float(weight @ each) for each in (along, along_square, across_square)))


def _rays(norm: float, g: Tensor, rho: Tensor) -> Rays:
    """Rays through points whose parts along and across e are g and rho."""
    return Rays(torch.full_like(g, norm), torch.atan2(rho, g - norm), torch.hypot(rho, g - norm))


def _nodes(spread: float, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Nodes g and rho (n,) of the normal and the chi distribution, scaled by `spread`, with weights that sum to 1."""
    k = torch.arange(NODES, dtype=torch.float64)
    shape = (size - 1) / 2 - 1
    g, normal = _gauss(torch.zeros_like(k), k[1:].sqrt())
    x, gamma = _gauss(2 * k + 1 + shape, (k[1:] * (k[1:] + shape)).sqrt())
    grid = torch.cartesian_prod(torch.arange(NODES), torch.arange(NODES)).T
    return spread * g[grid[0]], spread * (2 * x[grid[1]]).sqrt(), normal[grid[0]] * gamma[grid[1]]


def _gauss(diagonal: Tensor, beside: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes and weights from the recurrence of the orthogonal polynomials (Golub and Welsch, 1969)."""
    nodes, vectors = torch.linalg.eigh(torch.diag(diagonal) + torch.diag(beside, 1) + torch.diag(beside, -1))
    return nodes, vectors[0].square()
