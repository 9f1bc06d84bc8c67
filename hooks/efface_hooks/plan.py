"""From a list of patches to sockets: which module carries which tap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from efface_hooks.errors import UnknownPoint
from efface_hooks.patch import Edit, Patch
from efface_hooks.point import HookPoint, component, skip_slices
from efface_hooks.taps import DecoderTap, ModuleTap, layer_change

AT_UNET = ("step", "text")
AT_DECODER = ("skip", "mid")


@dataclass(frozen=True)
class Socket:
    """A module with a tap in it, and how the pipeline finds that module."""

    component: str
    path: str
    module: nn.Module
    tap: ModuleTap | DecoderTap


@dataclass(frozen=True)
class Plan:
    """All that a list of patches asks for: edits that the U-Net's guard runs itself, and sockets."""

    at_unet: tuple[Edit, ...] = ()
    sockets: tuple[Socket, ...] = ()

    @property
    def encoders(self) -> set[str]:
        """Text encoders that are edited."""
        return {socket.component for socket in self.sockets} - {"unet"}


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
    return Plan(at_unet, (*modules, *_decoder_sockets(component(pipe, "unet"), decoder)))


def _module_socket(pipe: Any, point: HookPoint, edits: list[Edit]) -> Socket:
    try:
        module = component(pipe, point.component).get_submodule(point.path)
    except AttributeError as error:
        raise UnknownPoint(f"{point.name} is no place of this {point.component}: it has no {point.path}") from error
    tap = ModuleTap(point.name, edits)
    if tap.added:
        layer_change(module)
    return Socket(point.component, point.path, module, tap)


def _decoder_sockets(unet: nn.Module, edits: list[Edit]) -> list[Socket]:
    sockets = []
    for position, (start, stop) in enumerate(skip_slices(unet)):
        skips = {index: _skip_edits(edits, index) for index in range(start, stop) if _skip_edits(edits, index)}
        mid = [edit for edit in edits if edit.point.kind == "mid"] if position == 0 else []
        if skips or mid:
            name = ", ".join([*(["unet.mid"] if mid else []), *(f"unet.skip.{index}" for index in skips)])
            path = f"up_blocks.{position}"
            sockets.append(Socket("unet", path, unet.get_submodule(path), DecoderTap(name, start, skips, mid)))
    return sockets


def _skip_edits(edits: list[Edit], index: int) -> list[Edit]:
    return [edit for edit in edits if edit.point.kind == "skip" and edit.point.depth == index]
