"""Writing maps and adds into the weights, and the way back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from efface.errors import EffaceError
from efface.weights import weight_of
from efface_hooks import BadEdit, Delta, LowRank, Patch
from efface_hooks.patch import Edit
from efface_hooks.plan import Place
from efface_hooks.point import component, fused_layer, text_readers


@dataclass(frozen=True)
class Writing:
    """One layer's weight: what it held, and what is to be written into it."""

    place: Place
    former: Tensor
    value: Tensor

    @property
    def weight(self) -> Tensor:
        """The weight that the layer has now, also while it is offloaded."""
        return weight_of(self.place.module)


@dataclass(frozen=True)
class Fusion:
    """All weights that edits are written into."""

    writings: tuple[Writing, ...]
    attentions: tuple[nn.Module, ...]

    @property
    def places(self) -> tuple[Place, ...]:
        """The layers concerned."""
        return tuple(one.place for one in self.writings)

    @torch.no_grad()
    def write(self) -> None:
        for one in self.writings:
            one.weight.copy_(one.value)

    @torch.no_grad()
    def undo(self) -> None:
        """The former values, bit for bit, also in the copies that `fuse_qkv_projections` made since."""
        for one in self.writings:
            one.weight.copy_(one.former)
        for attention in self.attentions:
            _refresh(attention)

    def check(self) -> None:
        """EffaceError when something else has changed a weight since: a LoRA that was fused into it, say.

        A cast of the model is no change; what is written back then has the new precision.
        """
        for one in self.writings:
            weight = one.weight.detach().to("cpu", torch.float64)
            own = torch.finfo(one.weight.dtype)
            relative = max(own.eps, torch.finfo(torch.bfloat16).eps)
            absolute = max(own.smallest_normal * own.eps, 1e-7)
            if not torch.allclose(weight, one.value.to(torch.float64), rtol=relative, atol=absolute):
                raise EffaceError(
                    f"The weight at {one.place.name} was changed after fuse(), by pipe.fuse_lora() for instance; "
                    "undo that first (pipe.unfuse_lora())"
                )


@torch.no_grad()
def fusion(pipe: Any, patches: Sequence[Patch]) -> Fusion:
    """Computes, and writes nothing: W (I + sum s E) + sum s Delta for every weight that maps and adds concern.

    BadEdit for what is no change of a weight: tensor edits, layers with an adapter around them, quantised layers,
    fused projections, a projection of the text that comes before the U-Net's readers.
    """
    edits = [edit for patch in patches for edit in patch.edits]
    concerned = {place.module: place for edit in edits for place in places(pipe, edit)}
    changes: dict[nn.Module, list[Edit]] = {module: [] for module in concerned}
    for edit in edits:
        for place in places(pipe, edit):
            changes[place.module].append(edit)
    parts = {component(pipe, place.component).get_submodule(_parent(place.path)) for place in concerned.values()}
    attentions = tuple(module for module in parts if hasattr(module, "to_k"))
    return Fusion(tuple(_writing(concerned[module], own) for module, own in changes.items()), attentions)


def _parent(path: str) -> str:
    return path.rpartition(".")[0]


def _refresh(attention: nn.Module) -> None:
    """Copy the projections' weights into the layer that `fuse_qkv_projections` made of them, if it has."""
    for fused, parts in (("to_qkv", ("to_q", "to_k", "to_v")), ("to_kv", ("to_k", "to_v"))):
        if hasattr(attention, fused):
            weights = [weight_of(attention.get_submodule(part)) for part in parts]
            weight_of(attention.get_submodule(fused)).copy_(torch.cat(weights))


def places(pipe: Any, edit: Edit) -> list[Place]:
    """The layers whose weights take up one edit."""
    if edit.verb not in ("map", "add"):
        raise BadEdit(f"Cannot fuse: {edit.verb} at {edit.point.name} is no change of a weight")
    root = component(pipe, edit.point.component)
    paths = [edit.point.path] if edit.point.kind != "text" else text_readers(root)
    if edit.point.kind == "text" and _projects_text(root):
        raise BadEdit("Cannot fuse: this U-Net projects the text (encoder_hid_proj) before its layers read it")
    for path in paths:
        if fused_layer(root, path) is not None:
            raise BadEdit(f"Cannot fuse: fuse_qkv_projections() bypasses {path}; call unfuse_qkv_projections() first")
    part = edit.point.component
    return [
        Place(f"{part}.{path}" if edit.point.kind == "text" else edit.point.name, part, path, module)
        for path in paths
        for module in [root.get_submodule(path)]
    ]


def _projects_text(unet: nn.Module) -> bool:
    """Whether the text is projected before its readers; an IP-Adapter's projection takes image embeddings alone."""
    kind = getattr(getattr(unet, "config", None), "encoder_hid_dim_type", None)
    return getattr(unet, "encoder_hid_proj", None) is not None and kind != "ip_image_proj"


def _writing(place: Place, edits: Sequence[Edit]) -> Writing:
    name, module = edits[0].point.name, place.module
    if hasattr(module, "base_layer"):
        raise BadEdit(f"Cannot fuse: an adapter is around a layer that {name} concerns; fuse or unload it first")
    weight = module.weight
    if not isinstance(weight, Tensor) or not weight.is_floating_point() or weight.is_meta:
        raise BadEdit(f"Cannot fuse: a layer that {name} concerns has no plain floating-point weight in memory")
    return Writing(place, weight.detach().to("cpu", copy=True), _edited(weight, edits).to("cpu", weight.dtype))


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
