"""What edits change in each layer's weight, as thin factors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from efface.fusing import places
from efface_hooks import Delta, LowRank, Patch
from efface_hooks.patch import Edit
from efface_hooks.plan import Place

# Singular values below this share of the largest are rounding in the float32 numbers that erasures are stored in.
NEGLIGIBLE = float(torch.finfo(torch.float32).eps)


@torch.no_grad()
def factors(pipe: Any, patches: Sequence[Patch]) -> dict[str, tuple[Place, LowRank]]:
    """For every weight that edits concern, by its public path, W' - W in float64.

    W' = (W (I + sum s E) + sum s Delta) (I + sum s T), T the maps of the text where the layer reads it.
    BadEdit, as for `Editor.fuse`, for what is no change of a plain weight.
    """
    edits = [edit for patch in patches for edit in patch.edits]
    concerned: dict[str, tuple[Place, list[Edit]]] = {}
    for edit in edits:
        for place in places(pipe, edit):
            concerned.setdefault(f"{place.component}.{place.path}", (place, []))[1].append(edit)
    return {name: (place, _change(place, own)) for name, (place, own) in concerned.items()}


def _change(place: Place, edits: Sequence[Edit]) -> LowRank:
    """W' - W of one layer."""
    weight: Tensor = place.module.weight.detach().to("cpu", torch.float64).flatten(1)  # type: ignore[operator]
    own = [_factored(weight, edit) for edit in edits if edit.point.kind != "text"]
    changed = weight + sum((one.dense() for one in own), torch.zeros_like(weight))
    text = [_factored(changed, edit) for edit in edits if edit.point.kind == "text"]
    return thin(_stacked([*own, *text]))


def _factored(weight: Tensor, edit: Edit) -> LowRank:
    """What one edit adds to a weight: W s E for a map, s Delta for an add."""
    up, down = _exact(edit.what)
    scaled = edit.scale * up
    return LowRank(weight @ scaled if edit.verb == "map" else scaled, down)


def _exact(delta: Delta) -> tuple[Tensor, Tensor]:
    if isinstance(delta, LowRank):
        return delta.up.to("cpu", torch.float64), delta.down.to("cpu", torch.float64)
    dense = delta.weight.to("cpu", torch.float64)
    return dense, torch.eye(dense.shape[1], dtype=torch.float64)


def _stacked(parts: Iterable[LowRank]) -> LowRank:
    listed = list(parts)
    return LowRank(torch.cat([one.up for one in listed], 1), torch.cat([one.down for one in listed], 0))


def thin(change: LowRank) -> LowRank:
    """The same matrix in as few columns as it has rank, both factors of like size so that half precision holds them.

    Singular values that are rounding are left out: an error of at most `NEGLIGIBLE` times the largest one.
    """
    left, upper = torch.linalg.qr(change.up)
    right, lower = torch.linalg.qr(change.down.T)
    inner, values, outer = torch.linalg.svd(upper @ lower.T, full_matrices=False)
    kept = values > NEGLIGIBLE * values.max()
    root = values[kept].sqrt()
    return LowRank(left @ inner[:, kept] * root, root[:, None] * (outer[kept] @ right.T))
