"""How a trained branch is kept in an erasure: whole, or as thin differences from the base encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

import efface
from efface_dumo.branch import ENCODER, Branch

Kind = Literal["float16", "float32", "low-rank"]
UP, DOWN, DIFFERENCE = ".up", ".down", ".difference"


@dataclass(frozen=True, eq=False)
class Stored:
    """The tensors that an erasure keeps of a branch, and those of the base encoder that differences refer to."""

    kept: Mapping[str, Tensor]
    base: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def needs_base(self) -> bool:
        return not any(name.startswith(f"{ENCODER}.conv_in.") and name.endswith("weight") for name in self.kept)

    def tensors(self, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
        """The branch's own tensors; sums are made in float32 and cast once."""
        whole = {name: tensor for name, tensor in self.kept.items() if not name.endswith((UP, DOWN, DIFFERENCE))}
        found = {name: tensor.to(device, dtype) for name, tensor in whole.items()}
        for name, base in self.base.items():
            found[name] = self._restored(name, base.to(device, torch.float32)).to(dtype)
        return found

    def check(self, branch: Branch) -> None:
        """BadArtifact for a tensor that this branch lacks, does not have, or has in another shape."""
        wanted = {name: tuple(tensor.shape) for name, tensor in branch.state_dict().items()}
        differences = {name + end for name in self.base for end in (UP, DOWN, DIFFERENCE)}
        found = {name: tuple(tensor.shape) for name, tensor in self.kept.items() if name not in differences}
        found |= {name: self._shape(name, tensor) for name, tensor in self.base.items()}
        for name in sorted(wanted.keys() | found.keys()):
            if wanted.get(name) != found.get(name):
                raise efface.BadArtifact(
                    f"The branch's tensor {name!r} is {found.get(name, 'missing')}; this U-Net needs "
                    f"{wanted.get(name, 'none of that name')}"
                )

    def _shape(self, name: str, base: Tensor) -> tuple[int, ...]:
        """The shape that a difference from this tensor gives: its own, unless they do not fit."""
        difference = self.kept.get(name + DIFFERENCE)
        if difference is not None:
            return tuple(difference.shape)
        up, down = (self.kept.get(name + end) for end in (UP, DOWN))
        if up is None or down is None:
            return tuple(base.shape) if up is down else ()
        fits = up.shape[1] == down.shape[0] and up.shape[0] * down.shape[1] == base.numel()
        return tuple(base.shape) if fits else (*up.shape, *down.shape)

    def _restored(self, name: str, base: Tensor) -> Tensor:
        if name + UP in self.kept:
            up, down = (self.kept[name + end].to(base) for end in (UP, DOWN))
            return base + (up @ down).view_as(base)
        if name + DIFFERENCE in self.kept:
            return base + self.kept[name + DIFFERENCE].to(base)
        return base


def kept(trained: Mapping[str, Tensor], base: Mapping[str, Tensor], kind: Kind, rank: int) -> dict[str, Tensor]:
    """What an erasure keeps of a trained branch; `base` are the base encoder's tensors under the branch's names."""
    if kind != "low-rank":
        dtype = torch.float32 if kind == "float32" else torch.float16
        return {name: tensor.detach().to("cpu", dtype) for name, tensor in trained.items()}
    found: dict[str, Tensor] = {}
    for name, tensor in trained.items():
        if name not in base:
            found[name] = tensor.detach()
        else:
            found |= _difference(name, tensor.detach().float() - base[name].to(tensor.device).float(), rank)
    return {name: tensor.to("cpu", torch.float16).contiguous() for name, tensor in found.items()}


def _difference(name: str, difference: Tensor, rank: int) -> dict[str, Tensor]:
    """Nothing for no difference, two factors where they are smaller than it is, else the difference itself."""
    if not difference.any():
        return {}
    matrix = difference.flatten(1) if difference.ndim > 1 else difference[:, None]
    if rank * sum(matrix.shape) >= matrix.numel():
        return {name + DIFFERENCE: difference}
    up, down = thin(matrix, rank)
    return {name + UP: up, name + DOWN: down}


def thin(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Factors (m, r) and (r, d) of the nearest matrix of rank r, of equal norms so that half precision holds both.

    From the eigenvectors of the smaller Gram matrix, in float64 on the CPU.
    """
    if matrix.shape[0] > matrix.shape[1]:
        down, up = thin(matrix.T, rank)
        return up.T.contiguous(), down.T.contiguous()
    exact = matrix.to("cpu", torch.float64)
    squares, vectors = torch.linalg.eigh(exact @ exact.T)
    root = squares[-rank:].clamp_min(torch.finfo(torch.float64).tiny) ** 0.25
    up = vectors[:, -rank:]
    return (up * root).float(), (up.T @ exact / root[:, None]).float()
