"""From a list of patches to sockets: which module carries which tap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from efface_hooks.errors import UnknownPoint
from efface_hooks.patch import Edit, Patch
from efface_hooks.point import HookPoint, component, fused_layer, skip_slices
from efface_hooks.taps import DecoderTap, FusedTap, ModuleTap, layer_change

AT_UNET = ("step", "text")
AT_DECODER = ("skip", "mid")


@dataclass(frozen=True)
class Place:
    """A module that an edit needs where it is: the point's name, and how the pipeline finds the module."""

    name: str
    component: str
    path: str
    module: nn.Module


@dataclass(frozen=True)
class Socket:
    """A module with a tap in it; `fused` when its attention calls one layer in place of it and its neighbours."""

    place: Place
    tap: ModuleTap | DecoderTap | FusedTap
    fused: bool = False


@dataclass(frozen=True)
class Plan:
    """All that a list of patches asks for: edits that the U-Net's guard runs itself, and sockets.

    `written` are layers with edits in their weights (`Editor.fuse`), which need no tap.
    """

    at_unet: tuple[Edit, ...] = ()
    sockets: tuple[Socket, ...] = ()
    written: tuple[Place, ...] = ()

    @property
    def encoders(self) -> dict[str, str]:
        """Text encoders that are edited, each with the name of a point in it."""
        places = [*(socket.place for socket in self.sockets), *self.written]
        return {place.component: place.name for place in reversed(places) if place.component != "unet"}


def planned(pipe: Any, patches: Sequence[Patch]) -> Plan:
    """The plan for these patches on this pipeline; changes nothing."""
    edits = [edit for patch in patches for edit in patch.edits if edit.scale]
    at_unet = tuple(edit for edit in edits if edit.point.kind in AT_UNET)
    decoder = [edit for edit in edits if edit.point.kind in AT_DECODER]
    by_module: dict[tuple[str, str], list[Edit]] = {}
    for edit in edits:
        if edit.point.kind not in AT_UNET + AT_DECODER:
            by_module.setdefault((edit.point.component, edit.point.path), []).append(edit)
    modules = [_module_socket(pipe, group[0].point, group) for group in by_module.values()]
    fused = _fused_sockets(component(pipe, "unet"), [socket for socket in modules if socket.fused])
    return Plan(at_unet, (*modules, *fused, *_decoder_sockets(component(pipe, "unet"), decoder)))


def _module_socket(pipe: Any, point: HookPoint, edits: list[Edit]) -> Socket:
    root = component(pipe, point.component)
    try:
        module = root.get_submodule(point.path)
    except AttributeError as error:
        raise UnknownPoint(f"{point.name} is no place of this {point.component}: it has no {point.path}") from error
    tap = ModuleTap(point.name, edits)
    if tap.added:
        layer_change(module)
    place = Place(point.name, point.component, point.path, module)
    return Socket(place, tap, fused=fused_layer(root, point.path) is not None)


def _fused_sockets(unet: nn.Module, sockets: list[Socket]) -> list[Socket]:
    """One for every fused layer (`to_kv`, `to_qkv`) that stands in for layers with sockets."""
    groups: dict[str, list[Socket]] = {}
    for socket in sockets:
        groups.setdefault(fused_layer(unet, socket.place.path) or "", []).append(socket)
    return [_fused_socket(unet, path, group) for path, group in groups.items()]


def _fused_socket(unet: nn.Module, path: str, sockets: list[Socket]) -> Socket:
    parts = {"to_kv": ("to_k", "to_v"), "to_qkv": ("to_q", "to_k", "to_v")}[path.rpartition(".")[2]]
    edited = {socket.place.path.rpartition(".")[2]: socket.place.module for socket in sockets}
    name = ", ".join(socket.place.name for socket in sockets)
    tap = FusedTap(f"{name} (fused)", [edited.get(part) for part in parts])
    return Socket(Place(name, "unet", path, unet.get_submodule(path)), tap)


def _decoder_sockets(unet: nn.Module, edits: list[Edit]) -> list[Socket]:
    sockets = []
    for position, (start, stop) in enumerate(skip_slices(unet)):
        skips = {index: _skip_edits(edits, index) for index in range(start, stop) if _skip_edits(edits, index)}
        mid = [edit for edit in edits if edit.point.kind == "mid"] if position == 0 else []
        if skips or mid:
            name = ", ".join([*(["unet.mid"] if mid else []), *(f"unet.skip.{index}" for index in skips)])
            path = f"up_blocks.{position}"
            place = Place(name, "unet", path, unet.get_submodule(path))
            sockets.append(Socket(place, DecoderTap(name, start, skips, mid)))
    return sockets


def _skip_edits(edits: list[Edit], index: int) -> list[Edit]:
    return [edit for edit in edits if edit.point.kind == "skip" and edit.point.depth == index]
