"""Layers as the tensors and facts of a fit, and back; what several concepts have in common is stored once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

import efface
from efface_gloce.gated import Terms
from efface_gloce.layer import PARTS, Layer

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


def _rows(tensors: Sequence[Tensor]) -> list[int]:
    """For each concept the number of the first one that has equal rows in all the tensors, counted without gaps."""
    numbers: list[int] = []
    firsts: list[int] = []
    for concept in range(len(tensors[0])):
        equal = [n for n, first in enumerate(firsts) if all(torch.equal(t[concept], t[first]) for t in tensors)]
        firsts += [] if equal else [concept]
        numbers.append(equal[0] if equal else len(firsts) - 1)
    return numbers


def _firsts(numbers: Sequence[int]) -> list[int]:
    """The first concept of each number."""
    return [numbers.index(number) for number in range(max(numbers) + 1)]
