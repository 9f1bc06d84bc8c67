"""Writing maps and adds into the weights, and the way back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from efface_hooks import BadEdit, Delta, LowRank, Patch
from efface_hooks.guard import is_fused
from efface_hooks.patch import Edit
from efface_hooks.point import component, text_readers


@dataclass(frozen=True)
class Fusion:
    """Weights with what they hold and what is to be written into them: (weight, former, value)."""

    weights: tuple[tuple[Tensor, Tensor, Tensor], ...]

    @torch.no_grad()
    def write(self) -> None:
        for weight, _, value in self.weights:
            weight.copy_(value)

    @torch.no_grad()
    def undo(self) -> None:
        """The former values, bit for bit."""
        for weight, former, _ in self.weights:
            weight.copy_(former)


@torch.no_grad()
def fusion(pipe: Any, patches: Sequence[Patch]) -> Fusion:
    """Computes, and writes nothing: W (I + sum s E) + sum s Delta for every weight that maps and adds concern.

    BadEdit for what is no change of a weight: tensor edits, layers with an adapter around them, quantised layers,
    fused projections, a projection of the text that comes before the U-Net's readers.
    """
    changes: dict[nn.Module, list[Edit]] = {}
    for patch in patches:
        for edit in patch.edits:
            for module in _modules(pipe, edit):
                changes.setdefault(module, []).append(edit)
    return Fusion(tuple(_weight(module, edits) for module, edits in changes.items()))


def _modules(pipe: Any, edit: Edit) -> list[nn.Module]:
    """The modules whose weights take up one edit."""
    if edit.verb not in ("map", "add"):
        raise BadEdit(f"Cannot fuse: {edit.verb} at {edit.point.name} is no change of a weight")
    root = component(pipe, edit.point.component)
    paths = [edit.point.path] if edit.point.kind != "text" else text_readers(root)
    if edit.point.kind == "text" and getattr(root, "encoder_hid_proj", None) is not None:
        raise BadEdit("Cannot fuse: this U-Net projects the text (encoder_hid_proj) before its layers read it")
    for path in paths:
        if is_fused(root.get_submodule(path.rpartition(".")[0]), path):
            raise BadEdit(f"Cannot fuse: fuse_qkv_projections() bypasses {path}; call unfuse_qkv_projections() first")
    return [root.get_submodule(path) for path in paths]


def _weight(module: nn.Module, edits: Sequence[Edit]) -> tuple[Tensor, Tensor, Tensor]:
    name = edits[0].point.name
    if hasattr(module, "base_layer"):
        raise BadEdit(f"Cannot fuse: an adapter is around a layer that {name} concerns; fuse or unload it first")
    weight = module.weight
    if not isinstance(weight, Tensor) or not weight.is_floating_point() or weight.is_meta:
        raise BadEdit(f"Cannot fuse: a layer that {name} concerns has no plain floating-point weight in memory")
    return weight, weight.detach().to("cpu", copy=True), _edited(weight, edits).to("cpu", weight.dtype)


def _edited(weight: Tensor, edits: Sequence[Edit]) -> Tensor:
    """The layer reads text that `unet.text` has mapped before any edit of its own, so that map comes after them."""
    flat = weight.detach().to(torch.float64).flatten(1)
    own = [edit for edit in edits if edit.point.kind != "text"]
    text = [edit for edit in edits if edit.point.kind == "text"]
    return _changed(_changed(flat, own), text).view_as(weight)


def _changed(weight: Tensor, edits: Sequence[Edit]) -> Tensor:
    total = weight.clone()
    for edit in edits:
        change = _exact(edit.what, weight) * edit.scale
        total += weight @ change if edit.verb == "map" else change
    return total


def _exact(delta: Delta, like: Tensor) -> Tensor:
    """The matrix of a change, multiplied out in the precision of another one."""
    factors = (delta.up, delta.down) if isinstance(delta, LowRank) else (delta.weight,)
    return reduce(torch.matmul, (factor.to(like) for factor in factors))
