"""How near a feature is to each of N concepts, all of them in one matrix product."""

from __future__ import annotations

import torch
from torch import Tensor

from efface_gloce.placed import Placed


class Gates:
    """p_n(x) = |V_n^T (x - m_n)|^2 / |x - m_n|^2, the squared cosine between a feature and a concept.

    `basis` (N, D, r) with orthonormal columns, `centre` (N, D). Concepts of one domain have the same centre: then
    the features are centred once for all of them. For other centres the shift enters after the product.
    """

    def __init__(self, basis: Tensor, centre: Tensor) -> None:
        distinct, which = torch.unique(centre.double(), dim=0, return_inverse=True)
        origin = distinct.mean(0)
        shifts = distinct - origin
        self.count, _, self.rank = basis.shape
        self._tensors = Placed(
            {
                "origin": origin,
                "columns": basis.permute(1, 0, 2).flatten(1),
                "offset": torch.einsum("nd,ndr->nr", shifts[which], basis.double()).flatten(),
                "shifts": 2 * shifts.T,
                "squares": shifts.square().sum(1),
            }
        )
        self._which = which if len(distinct) > 1 else None

    def __call__(self, x: Tensor) -> Tensor:
        """p (..., N) for features (..., D) in float32 or wider."""
        own = self._tensors.beside(x)
        y = x - own["origin"]
        distance = torch.linalg.vector_norm(y, dim=-1, keepdim=True).square()
        inside = y @ own["columns"]
        if self._which is not None:
            inside = inside - own["offset"]
            distance = (distance - y @ own["shifts"] + own["squares"])[..., self._which]
        if self.rank > 1:
            inside = torch.linalg.vector_norm(inside.view(*x.shape[:-1], self.count, self.rank), dim=-1)
        nearness: Tensor = inside.square() / distance.clamp_min(torch.finfo(x.dtype).tiny)
        return nearness
