"""First and second moments of features, summed as they come so that nothing else has to be kept."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor

import efface

LEVELS = 4


@dataclass(frozen=True)
class Moments:
    """Sums over `count` vectors x about a `shift` (D): `total` (D) of x - shift, `scatter` (D, D) of its squares."""

    count: int
    shift: Tensor
    total: Tensor
    scatter: Tensor

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Moments:
        return Moments(self.count, *(sums.to(device, dtype) for sums in (self.shift, self.total, self.scatter)))

    def __add__(self, other: Moments) -> Moments:
        """The moments of both sets of vectors, about this one's shift."""
        away = other.shift - self.shift
        crossed = torch.outer(other.total, away)
        moved = other.scatter + crossed + crossed.T + other.count * torch.outer(away, away)
        total = self.total + other.total + other.count * away
        return Moments(self.count + other.count, self.shift, total, self.scatter + moved)


@dataclass(frozen=True)
class Spread:
    """The mean (D) and the biased covariance (D, D) of vectors, float64."""

    mean: Tensor
    covariance: Tensor


class Running:
    """Moments in the making. The shift is the mean of the first vectors, so that float32 sums lose little."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.count = 0
        self._dtype = dtype
        self._sums: tuple[Tensor, Tensor, Tensor] | None = None

    def add(self, x: Tensor) -> None:
        """Take in vectors (n, D)."""
        x = x.to(torch.promote_types(x.dtype, self._dtype))
        shift, total, scatter = self._sums or self._begun(x)
        y = x - shift
        total += y.sum(0)
        scatter.addmm_(y.T, y)
        self.count += len(x)

    def moments(self) -> Moments:
        if self._sums is None:
            raise efface.EffaceError("No features came in, so they have no moments")
        return Moments(self.count, *self._sums)

    def _begun(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        shift = x.mean(0)
        self._sums = (shift, torch.zeros_like(shift), shift.new_zeros(len(shift), len(shift)))
        return self._sums


def spread(moments: Moments) -> Spread:
    """Mean and covariance of the vectors behind moments."""
    exact = moments.to(moments.shift.device, torch.float64)
    away = exact.total / exact.count
    return Spread(exact.shift + away, exact.scatter / exact.count - torch.outer(away, away))


def pyramid(tokens: Tensor, size: tuple[int, int], levels: int = LEVELS) -> Tensor:
    """Tokens (B, h w, D) and their 2 x 2 average poolings, one after another, as vectors (n, D).

    A grid that is one row or column wide is not pooled further; of an odd size the last row or column is left out.
    """
    grid = tokens.transpose(1, 2).reshape(len(tokens), -1, *size)
    found = [grid]
    while len(found) < levels and min(found[-1].shape[2:]) > 1:
        found.append(F.avg_pool2d(found[-1], 2))
    return torch.cat([each.flatten(2).transpose(1, 2).flatten(0, 1) for each in found])


def grid_size(latents: tuple[int, int], tokens: int) -> tuple[int, int]:
    """Height and width of the grid that so many tokens form in a U-Net that halves the latents' size."""
    high, wide = latents
    while high * wide > tokens and max(high, wide) > 1:
        high, wide = -(-high // 2), -(-wide // 2)
    if high * wide != tokens:
        raise efface.EffaceError(f"{tokens} tokens are no halving of a {latents[0]} x {latents[1]} latent")
    return high, wide
