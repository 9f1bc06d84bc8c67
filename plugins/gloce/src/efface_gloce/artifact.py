"""Layers as the tensors and facts of a fit, and back; what several concepts have in common is stored once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

import efface
from efface_gloce.gated import Terms
from efface_gloce.layer import PARTS, Layer, stacked

FITTED = ("eta", "first", "last", "everywhere")
SHARED: Mapping[str, tuple[str, ...]] = {"centre": ("centre",), "mapping": ("map_basis", "map_mean")}


def packed(layers: Mapping[str, Layer], terms: Sequence[Terms]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors `<point>.<part>`, and as facts the terms and, for what is shared, the row of each concept."""
    rows = {
        what: _rows([getattr(layer, part) for layer in layers.values() for part in SHARED[what]]) for what in SHARED
    }
    tensors = {}
    for point, layer in layers.items():
        for part in PARTS:
            kept = [rows[what] for what, parts in SHARED.items() if part in parts]
            tensor = getattr(layer, part)
            tensors[f"{point}.{part}"] = tensor[_firsts(kept[0])] if kept else tensor
    own = [{name: getattr(one, name) for name in FITTED} for one in terms]
    return tensors, {"rows": rows, "terms": own}


def unpacked(fit: efface.Fit) -> dict[str, Layer]:
    """The layer of each point, all concepts of the fit."""
    points = dict.fromkeys(name.rpartition(".")[0] for name in fit.tensors)
    rows: dict[str, list[int]] = fit.facts["rows"]
    indices = {part: rows[what] for what, parts in SHARED.items() for part in parts}

    def tensor(point: str, part: str) -> Tensor:
        found = fit.tensors[f"{point}.{part}"]
        return found[indices[part]] if part in indices else found

    return {point: Layer(**{part: tensor(point, part) for part in PARTS}) for point in points}


def terms_of(fitted: efface.Fitted) -> list[Terms]:
    """How each concept of an erasure is applied."""
    each = zip(fitted.fit.facts["terms"], fitted.request.concepts, strict=True)
    return [Terms(**own, scale=fitted.scale, concept=concept.text) for own, concept in each]


def merged(fits: Sequence[efface.Fitted], request: efface.Request) -> tuple[dict[str, Layer], list[Terms]]:
    """The layers of all concepts of a request, which are in these fits, and how each is applied.

    EffaceError where the fits hold numbers of different precision, which none could keep.
    """
    dtypes = {tensor.dtype for fitted in fits for tensor in fitted.fit.tensors.values()}
    if len(dtypes) > 1:
        names = " and ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
        raise efface.EffaceError(f"GLoCE erasures in {names} cannot be merged bit for bit; attach both files instead")
    wanted = set(request.concepts)
    rows = [[n for n, concept in enumerate(one.request.concepts) if concept in wanted] for one in fits]
    each = [unpacked(fitted.fit) for fitted in fits]
    layers = {
        point: stacked(own[point].at(kept) for own, kept in zip(each, rows, strict=True)).trimmed() for point in each[0]
    }
    return layers, [terms_of(fitted)[row] for fitted, kept in zip(fits, rows, strict=True) for row in kept]


def _rows(tensors: Sequence[Tensor]) -> list[int]:
    """For each concept the number of the first one that has equal rows in all the tensors, counted without gaps."""
    numbers: dict[bytes, int] = {}
    return [numbers.setdefault(_bits(tensors, concept), len(numbers)) for concept in range(len(tensors[0]))]


def _bits(tensors: Sequence[Tensor], row: int) -> bytes:
    """The digest of one row of all the tensors: equal for equal bits."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor[row].contiguous().view(torch.uint8).numpy().data)
    return found.digest()


def _firsts(numbers: Sequence[int]) -> list[int]:
    """The first concept of each number."""
    return [numbers.index(number) for number in range(max(numbers) + 1)]
