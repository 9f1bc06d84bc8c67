"""Where on a ray from an embedding the cosine to that embedding lies in a window."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Self

import torch
from torch import Tensor

import efface


@dataclass(frozen=True, eq=False)
class Rays:
    """Rays e + r u, r >= 0: `norm` |e|, `angle` between u and e in radians, and `reach` |v - e|; all (n,).

    Every ray runs from e through a point v, so u = (v - e) / |v - e|.
    """

    norm: Tensor
    angle: Tensor
    reach: Tensor

    @classmethod
    def through(cls, e: Tensor, points: Tensor) -> Self:
        """The rays from e (d,) through each of the points (n, d)."""
        norm, way = e.norm(), points - e
        along = way @ e / norm
        across = (way - along[:, None] * (e / norm)).norm(dim=1)
        return cls(norm.expand(len(points)), torch.atan2(across, along), way.norm(dim=1))

    def radius(self, cosine: float | Tensor) -> Tensor:
        """The r at which cos(e, e + r u) has fallen to `cosine`, a number or (n,); inf where it never does, (n,).

        Derived: 0, e and e + r u form a triangle, so by the law of sines r = |e| sin(theta) / sin(angle - theta)
        with theta the angle that is wanted; along a ray the cosine falls strictly.
        """
        theta = torch.as_tensor(cosine, dtype=self.norm.dtype).acos()
        found = self.norm * theta.sin() / (self.angle - theta).sin()
        return torch.where(theta < self.angle, found, inf)

    def cosine(self, radius: Tensor) -> Tensor:
        """cos(e, e + r u), (n,)."""
        along, across = self.norm + radius * self.angle.cos(), radius * self.angle.sin()
        return along / torch.hypot(along, across)


@dataclass(frozen=True)
class Window:
    """Points whose cosine to an embedding e lies from `farthest` to `nearest`, at most `distance` |e| away from it."""

    nearest: float
    farthest: float
    distance: float

    def radii(self, rays: Rays) -> tuple[Tensor, Tensor]:
        """The interval of r on each ray, (n,) and (n,); empty where the first is not below the second."""
        return rays.radius(self.nearest), rays.radius(self.farthest).minimum(self.distance * rays.norm)

    def entered(self, rays: Rays) -> tuple[Tensor, Tensor]:
        """`radii`, where no interval may be empty: EffaceError says what is in the way."""
        low, high = self.radii(rays)
        if bool((low >= high).any()):
            needed = float((low / rays.norm).max())
            raise efface.EffaceError(
                f"No point with a cosine from {self.farthest:g} to {self.nearest:g} lies within {self.distance:g} "
                f"norms of the embedding: the nearest is {needed:.3g} away; raise distance or widen the window"
            )
        return low, high
