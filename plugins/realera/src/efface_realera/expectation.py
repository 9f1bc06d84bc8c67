"""Stage 1 without sampling: what infinitely many isotropic draws around one prompt add to the objective."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from efface.alignment import Aligned
from efface.solver import Columns
from efface_realera.closed_form import Share
from efface_realera.moments import Moments


@dataclass(frozen=True, eq=False)
class Expected:
    """The moments of a prompt's perturbed embedding, and its length, for each of the blocks perturbed apart."""

    moments: Sequence[Moments]
    norms: Sequence[float]
    blocks: Sequence[slice]

    @property
    def across(self) -> Tensor:
        """The variance of the noise in every direction across the embedding, (blocks,)."""
        return torch.tensor([moment.across_square for moment in self.moments], dtype=torch.float64)

    def wishes(self, pairs: Aligned, weight: float) -> Share:
        """The neighbours of the prompt become its anchor; the columns weigh `weight` together.

        The mean of each column becomes its anchor, and the noise around it, as the columns of a root of its
        covariance, becomes zero: E[(a - c) c^T] has these two parts and no others (derived). The second is a ridge
        towards zero on everything unrelated, which is what `shrinking` is about.
        """
        targets = pairs.targets.to("cpu", torch.float64)
        root = torch.linalg.cholesky(self._covariance(targets))
        inputs = torch.cat([self._mean(targets), root], 1)
        goals = torch.cat([pairs.anchors.to("cpu", torch.float64), torch.zeros_like(root)], 1)
        return Share(soft=(Columns.pairs(inputs, goals, torch.full((inputs.shape[1],), weight / targets.shape[1])),))

    def still(self, columns: Tensor, weight: float) -> Share:
        """The beyond-concept points of the prompt stay: weight mean_k E[b_k b_k^T]."""
        exact = columns.to("cpu", torch.float64)
        mean = self._mean(exact)
        return Share(still=((mean @ mean.T + self._covariance(exact)) * (weight / exact.shape[1]),))

    def _mean(self, columns: Tensor) -> Tensor:
        """E[c_k] = along e_k / |e|, each block on its own, (d, n)."""
        scales = [moment.along / norm for moment, norm in zip(self.moments, self.norms, strict=True)]
        return torch.cat([columns[block] * scale for block, scale in zip(self.blocks, scales, strict=True)])

    def _covariance(self, columns: Tensor) -> Tensor:
        """sum_k Cov[c_k], (d, d); the blocks are perturbed independently, so nothing stands between them."""
        parts = []
        for moment, norm, block in zip(self.moments, self.norms, self.blocks, strict=True):
            unit = columns[block] / norm
            along = moment.along_square - moment.along**2 - moment.across_square
            white = torch.eye(len(unit), dtype=torch.float64) * (moment.across_square * unit.shape[1])
            parts.append(along * unit @ unit.T + white)
        covariance: Tensor = torch.block_diag(*parts)  # type: ignore[no-untyped-call]
        return covariance
