"""Linear changes: what `Patch.map` and `Patch.add` put on a layer."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LowRank:
    """The matrix up @ down: `up` (m, r), `down` (r, d), as in LoRA."""

    up: Tensor
    down: Tensor

    def __post_init__(self) -> None:
        _floating("up", self.up)
        _floating("down", self.down)
        if self.up.shape[1] != self.down.shape[0]:
            raise ValueError(
                f"LowRank up {tuple(self.up.shape)} and down {tuple(self.down.shape)} have different ranks"
            )

    @property
    def shape(self) -> tuple[int, int]:
        return (self.up.shape[0], self.down.shape[1])

    @property
    def rank(self) -> int:
        return self.up.shape[1]

    def dense(self) -> Tensor:
        """The (m, d) matrix itself."""
        return self.up @ self.down

    def wide(self) -> LowRank:
        """The same matrix in float32 or wider, so that scaling and summing half-precision factors loses nothing."""
        return LowRank(_wide(self.up), _wide(self.down))

    def scaled(self, scale: float) -> LowRank:
        return self if scale == 1.0 else LowRank(self.up * scale, self.down)

    def key(self) -> bytes:
        """A digest of the content: equal matrices in equal form have equal keys."""
        return _digest(self.up, self.down)


@dataclass(frozen=True)
class Dense:
    """A full matrix (m, d)."""

    weight: Tensor

    def __post_init__(self) -> None:
        _floating("weight", self.weight)

    @property
    def shape(self) -> tuple[int, int]:
        return (self.weight.shape[0], self.weight.shape[1])

    @property
    def rank(self) -> int:
        return min(self.shape)

    def dense(self) -> Tensor:
        return self.weight

    def wide(self) -> Dense:
        """The same matrix in float32 or wider."""
        return Dense(_wide(self.weight))

    def scaled(self, scale: float) -> Dense:
        return self if scale == 1.0 else Dense(self.weight * scale)

    def key(self) -> bytes:
        return _digest(self.weight)


Delta = LowRank | Dense


def total(deltas: Sequence[Delta]) -> LowRank | Dense | None:
    """One delta equal to the sum: low-rank terms become one stacked factor pair, so that any number of
    erasures costs two matrix products.

    The terms are put in the order of their content first: floating-point sums depend on order, the result of
    attaching must not.
    """
    ordered = sorted(deltas, key=lambda delta: delta.key())
    thin = [delta for delta in ordered if isinstance(delta, LowRank)]
    full = [delta for delta in ordered if isinstance(delta, Dense)]
    stacked = _stacked(thin)
    if not full:
        return stacked
    weight = torch.stack([delta.weight for delta in full]).sum(0) if len(full) > 1 else full[0].weight
    if stacked is None:
        return Dense(weight)
    return Dense(weight + stacked.dense().to(weight))


def _stacked(thin: Sequence[LowRank]) -> LowRank | None:
    if not thin:
        return None
    if len(thin) == 1:
        return thin[0]
    return LowRank(torch.cat([delta.up for delta in thin], 1), torch.cat([delta.down for delta in thin], 0))


def _wide(matrix: Tensor) -> Tensor:
    return matrix.to(torch.promote_types(matrix.dtype, torch.float32))


def _floating(name: str, matrix: Tensor) -> None:
    if matrix.ndim != 2 or not matrix.is_floating_point():
        raise ValueError(f"{name} must be a floating-point matrix, not {matrix.dtype} {tuple(matrix.shape)}")


def _digest(*matrices: Tensor) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for matrix in matrices:
        digest.update(f"{matrix.dtype}{tuple(matrix.shape)}".encode())
        digest.update(matrix.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.digest()
