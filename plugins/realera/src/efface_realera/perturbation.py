"""Random points around an embedding, inside a window of cosines, without a rejected draw."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from efface_realera.window import Rays, Window


def isotropic(e: Tensor, count: int, window: Window, generator: Generator, noise: float | None = None) -> Tensor:
    """Points e + alpha (v - e) with v ~ N(0, noise^2 I) and alpha uniform on the part of the ray in the window.

    e (d,) in float64; returns (count, d). `noise` None is the root mean square of e, which makes the law free of
    scale. Source: the sampler of the only public code, a third party's port (vios-s/CRCE), which draws alpha
    |v - e| uniformly from [0, D] and rejects on the cosine; given v, the accepted draws are uniform on the interval
    that is used here (derived). A v whose ray misses the window, which happens in few dimensions only, is mirrored.
    """
    spread = float(e.norm()) / len(e) ** 0.5 if noise is None else noise
    v = _mirrored(e, spread * torch.randn(count, len(e), generator=generator, dtype=e.dtype), window)
    rays = Rays.through(e, v)
    low, high = window.entered(rays)
    radius = high - (high - low) * torch.rand(count, generator=generator, dtype=e.dtype)
    return e + (radius / rays.reach)[:, None] * (v - e)


def correlated(e: Tensor, count: int, window: Window, generator: Generator, spread: Tensor) -> Tensor:
    """Points e + tau C^(1/2) z whose cosine to e is uniform on the window; C = spread^T spread, z ~ N(0, I).

    `spread` (s, d) holds centred embeddings over sqrt(s), so that z^T spread has their covariance without any
    d x d root. Of +-z the one that leads away from e is taken, which can reach every cosine above 0.
    Reconstruction: the paper does not say how its perturbations are distributed.
    """
    way = torch.randn(count, len(spread), generator=generator, dtype=e.dtype) @ spread
    way = torch.where((way @ e > 0)[:, None], -way, way)
    rays = Rays.through(e, e + way)
    _, high = window.entered(rays)
    least = rays.cosine(high).clamp_min(window.farthest)
    cosine = least + (window.nearest - least) * torch.rand(count, generator=generator, dtype=e.dtype)
    radius = rays.radius(cosine)
    return e + (radius / rays.reach)[:, None] * way


def _mirrored(e: Tensor, points: Tensor, window: Window) -> Tensor:
    """The points (n, d), their part along e turned round where it points along e and the ray misses the window."""
    low, high = window.radii(Rays.through(e, points))
    along = points @ e / e.square().sum()
    turned = torch.where((low >= high) & (along > 0), 2 * along, 0)
    return points - turned[:, None] * e
