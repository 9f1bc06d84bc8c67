"""Writing maps and adds into the weights, and the way back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from efface_hooks import BadEdit, Patch
from efface_hooks.patch import Edit
from efface_hooks.point import component, text_readers


@dataclass(frozen=True)
class Fused:
    """Weights that were written to, each with a copy of what it held."""

    kept: tuple[tuple[Tensor, Tensor], ...]

    def undo(self) -> None:
        """The former values, bit for bit."""
        with torch.no_grad():
            for weight, former in self.kept:
                weight.copy_(former)


@torch.no_grad()
def fused(pipe: Any, patches: Sequence[Patch]) -> Fused:
    """Write W (I + sum s E) + sum s Delta into every weight that the patches' maps and adds concern.

    Everything is computed before anything is written. BadEdit for what is no change of a weight: tensor edits, layers
    with an adapter around them, quantised layers, a projection of the text that comes before the U-Net's readers.
    """
    changes: dict[nn.Module, list[Edit]] = {}
    for patch in patches:
        for edit in patch.edits:
            for module in _modules(pipe, edit):
                changes.setdefault(module, []).append(edit)
    written = [(_weight(module, edits), _edited(module, edits)) for module, edits in changes.items()]
    kept = Fused(tuple((weight, weight.detach().cpu().clone()) for weight, _ in written))
    try:
        for weight, value in written:
            weight.copy_(value)
    except BaseException:
        kept.undo()
        raise
    return kept


def _modules(pipe: Any, edit: Edit) -> list[nn.Module]:
    """The modules whose weights take up one edit."""
    if edit.verb not in ("map", "add"):
        raise BadEdit(f"Cannot fuse: {edit.verb} at {edit.point.name} is no change of a weight")
    root = component(pipe, edit.point.component)
    if edit.point.kind != "text":
        return [root.get_submodule(edit.point.path)]
    if getattr(root, "encoder_hid_proj", None) is not None:
        raise BadEdit("Cannot fuse: this U-Net projects the text (encoder_hid_proj) before its layers read it")
    return [root.get_submodule(path) for path in text_readers(root)]


def _weight(module: nn.Module, edits: Sequence[Edit]) -> Tensor:
    name = edits[0].point.name
    if hasattr(module, "base_layer"):
        raise BadEdit(f"Cannot fuse: an adapter is around a layer that {name} concerns; fuse or unload it first")
    weight = module.weight
    if not isinstance(weight, Tensor) or not weight.is_floating_point() or weight.is_meta:
        raise BadEdit(f"Cannot fuse: a layer that {name} concerns has no plain floating-point weight in memory")
    return weight


def _edited(module: nn.Module, edits: Sequence[Edit]) -> Tensor:
    weight = _weight(module, edits)
    exact = weight.detach().to(torch.float64)
    flat = exact.flatten(1)
    total = flat.clone()
    for edit in edits:
        change = edit.what.dense().to(flat) * edit.scale
        total += flat @ change if edit.verb == "map" else change
    return total.view_as(exact)
