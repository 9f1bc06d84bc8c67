"""The numbers of N concepts at one layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

PARTS = ("centre", "gate_basis", "map_basis", "map_mean", "slope", "target_mean", "threshold", "update")
RANKED = ("gate_basis", "map_basis", "update")


@dataclass(frozen=True)
class Layer:
    """One concept per row, for features of D channels.

    `gate_basis` (N, D, r3), `centre` (N, D), `threshold` and `slope` (N,) decide where it acts. `map_basis` and
    `update` (N, D, r1), `map_mean` and `target_mean` (N, D) say what becomes of a feature there. In the paper's
    symbols: V_gate, m, c, k; V_map, U = (I - V_tar V_tar^T) V_map, mu_map, mu_tar.
    """

    centre: Tensor
    gate_basis: Tensor
    map_basis: Tensor
    map_mean: Tensor
    slope: Tensor
    target_mean: Tensor
    threshold: Tensor
    update: Tensor

    @property
    def concepts(self) -> int:
        return len(self.threshold)

    @property
    def channels(self) -> int:
        return self.centre.shape[1]

    @property
    def flops(self) -> float:
        """Operations for one token: its distance from the centre, all gates, and the edit of one concept."""
        products = 1 + self.concepts * self.gate_basis.shape[2] + 2 * self.map_basis.shape[2]
        return 2.0 * self.channels * products

    def each(self, change: Callable[[Tensor], Tensor]) -> Layer:
        """The layer with a function applied to every tensor."""
        return Layer(**{field.name: change(getattr(self, field.name)) for field in fields(self)})

    def at(self, rows: Sequence[int]) -> Layer:
        """The layer of these concepts, in this order."""
        return self.each(lambda tensor: tensor[list(rows)])

    def trimmed(self) -> Layer:
        """The layer without what `stacked` adds to concepts of lower rank, once none of higher rank is there."""
        gate, mapping = _rank(self.gate_basis), _rank(self.map_basis)
        return replace(
            self,
            gate_basis=self.gate_basis[..., :gate],
            map_basis=self.map_basis[..., :mapping],
            update=self.update[..., :mapping],
        )


def stacked(layers: Iterable[Layer]) -> Layer:
    """The concepts of several layers in one; bases of lower rank get columns of zeros, which change nothing."""
    found = list(layers)

    def joined(name: str) -> Tensor:
        parts = [getattr(layer, name) for layer in found]
        if name in RANKED:
            widest = max(part.shape[2] for part in parts)
            parts = [torch.nn.functional.pad(part, (0, widest - part.shape[2])) for part in parts]
        return torch.cat(parts)

    return Layer(**{name: joined(name) for name in PARTS})


def _rank(bases: Tensor) -> int:
    """How many columns of bases (N, D, r) there are, up to the last that is not zero for all concepts."""
    used = bases.any(0).any(0).nonzero()
    return int(used.max()) + 1 if len(used) else 1
