"""What an edit reaches: the modules that compute otherwise, and the work that this takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from efface.planning.flops import delta_flops
from efface_hooks.patch import Edit
from efface_hooks.point import TEXT_ENCODERS, component, text_readers


def modules(pipe: Any, edit: Edit) -> dict[str, nn.Module]:
    """The layers at which an edit acts, by name: its own, or for an edit of the text all that read it."""
    root = component(pipe, edit.point.component)
    paths = text_readers(root) if edit.point.kind == "text" else [edit.point.path] * bool(edit.point.path)
    return {f"{edit.point.component}.{path}": root.get_submodule(path) for path in paths}


def weights(pipe: Any, edits: Iterable[Edit]) -> int:
    """How many weights of the model maps and adds change in effect, each counted once."""
    linear = (edit for edit in edits if edit.verb in ("map", "add"))
    found = {name: module for edit in linear for name, module in modules(pipe, edit).items()}
    return sum(_weights(module) for module in found.values())


def added_flops(edit: Edit, at: Mapping[str, int], tokens: int) -> float | None:
    """Operations that one edit adds to a denoising call for one picture; None for an edit that may do anything.

    Text encoders run once for a prompt and not in a denoising call.
    """
    if edit.point.component in TEXT_ENCODERS:
        return 0.0
    if edit.verb not in ("map", "add"):
        return None
    path = edit.point.path
    number = tokens if edit.point.kind == "text" else at.get(path) or at.get(f"{path}.base_layer")
    return None if number is None else delta_flops(edit.what, number)


def _weights(module: Any) -> int:
    return int(getattr(module, "base_layer", module).weight.numel())
