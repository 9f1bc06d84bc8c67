"""The trainable low-rank change of the cross-attention's keys and values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Generator, Tensor

import efface


class Adapter:
    """up @ down for every point, float32: `down` (r, d) starts random, `up` (m, r) at zero, so that nothing changes.

    With `still` (d, k), columns that must not move, each `down` acts on the space orthogonal to them, before, during
    and after training. Reconstruction: rank, points and start are those usual for LoRA; the paper names none.
    """

    def __init__(
        self, points: Sequence[efface.HookPoint], rank: int, generator: Generator, device: torch.device, still: Tensor
    ) -> None:
        self.down = {point.name: _start(rank, point.in_features or 0, generator).to(device) for point in points}
        self.up = {point.name: torch.zeros(point.out_features or 0, rank, device=device) for point in points}
        self._free = _orthogonal_to(still).to(device, torch.float32)
        for parameter in self.parameters():
            parameter.requires_grad_()

    def parameters(self) -> Iterator[Tensor]:
        """All trainable tensors, in a fixed order."""
        yield from (*self.down.values(), *self.up.values())

    def change(self, name: str, x: Tensor) -> Tensor:
        """What is added to a point's output for its input x (..., d)."""
        down, up = self.down[name] @ self._free, self.up[name]
        added: Tensor = (x.float() @ down.T) @ up.T
        return added.to(x.dtype)

    def delta(self, name: str) -> efface.LowRank:
        """The change at a point as it is now, apart from further training."""
        with torch.no_grad():
            return efface.LowRank(self.up[name].clone(), self.down[name] @ self._free)


def _start(rank: int, width: int, generator: Generator) -> Tensor:
    spread: Tensor = (2 * torch.rand(rank, width, generator=generator) - 1) / width**0.5
    return spread


def _orthogonal_to(columns: Tensor) -> Tensor:
    """The projector (d, d) onto what is orthogonal to columns (d, k)."""
    exact = columns.to("cpu", torch.float64)
    basis, sigma, _ = torch.linalg.svd(exact, full_matrices=False)
    basis = basis[:, sigma > 1e-6 * sigma[:1]]
    free: Tensor = torch.eye(len(exact), dtype=torch.float64) - basis @ basis.T
    return free
