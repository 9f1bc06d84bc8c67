"""Checkpoints in the layout of the published code: one concept per file, nine tensors for each layer."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

import efface
from efface.fingerprint import fingerprint
from efface.writing import write
from efface_gloce.artifact import packed, unpacked
from efface_gloce.gloce import KIND, GLoCE
from efface_gloce.layer import RANKED, Layer, stacked

PREFIX = "lora_gloce_"
KEYS: Mapping[str, str] = {
    "centre": "selector.select_mean_diff.weight",
    "gate_basis": "selector.select_weight.weight",
    "map_basis": "lora_degen.weight",
    "map_mean": "bias.weight",
    "slope": "selector.imp_slope",
    "target_mean": "debias.weight",
    "threshold": "selector.imp_center",
    "update": "lora_update.weight",
}
SCALARS = ("slope", "threshold")
ALPHA = "alpha"
FILE = "ckpt.safetensors"


def imported(
    pipe: Any,
    files: Mapping[str, str | os.PathLike[str]],
    method: GLoCE | None = None,
    registry: efface.Registry | None = None,
) -> efface.Erasure:
    """The erasure for checkpoints by concept. A file says neither when, where nor on which model it acts.

    `pipe` is that model, and `method` has eta, window and rows.

    Raises BadArtifact for a file of another layout or of another model's layers.
    """
    method, registry = method or GLoCE(), registry or efface.Registry.installed()
    places = efface.Model(pipe, registry).points(KIND)
    each = [read(path, places) for path in files.values()]
    if not each:
        raise efface.BadArtifact("There is no checkpoint to import")
    layers = {place.name: stacked(one[place.name] for one in each) for place in places}
    tensors, facts = packed(layers, [method.terms] * len(each))
    return efface.Erasure.of(
        method,
        efface.Fit(tensors, facts, {"imported": [os.path.basename(path) for path in files.values()]}),
        efface.Request(tuple(efface.Concept(text) for text in files)),
        origin=registry.origin(GLoCE),
        base=fingerprint(pipe, places),
        points=[place.name for place in places],
    )


def exported(erasure: efface.Erasure, folder: str | os.PathLike[str]) -> list[Path]:
    """Write FOLDER/CONCEPT/ckpt.safetensors for each concept; spaces in its name become underscores."""
    if erasure.method != GLoCE.name:
        raise efface.BadArtifact(f"{erasure!r} is not by {GLoCE.name}: it has no gates to export")
    layers = unpacked(erasure.fit)
    paths = []
    for row, concept in enumerate(erasure.concepts):
        rank = str(erasure.header.settings["target_rank"])
        metadata = {"prompts": concept.text, "rank": rank, "alpha": "1.0"}
        tensors = _written({point: layer.at([row]) for point, layer in layers.items()})
        path = Path(folder, concept.text.replace(" ", "_").replace(os.sep, "_"), FILE)
        write(path, safetensors.torch.save(tensors, metadata=metadata), make_folder=True)
        paths.append(path)
    return paths


def read(path: str | os.PathLike[str], places: Sequence[efface.HookPoint]) -> dict[str, Layer]:
    """The layers of one checkpoint, one concept, by point."""
    try:
        tensors = safetensors.torch.load(Path(path).read_bytes())
    except (OSError, safetensors.SafetensorError) as error:
        raise efface.BadArtifact(f"{os.fspath(path)}: {error}") from error
    wanted = {_key(place.path): place for place in places}
    found = {key.partition(".")[0] for key in tensors}
    if found != set(wanted):
        here = f"{len(wanted)} cross-attention layers of this model, and {len(found & set(wanted))} of them"
        raise efface.BadArtifact(f"{os.fspath(path)} does not fit the {here} are among its {len(found)} layers")
    return {place.name: _layer(path, key, place, tensors) for key, place in wanted.items()}


def _layer(path: str | os.PathLike[str], key: str, place: efface.HookPoint, tensors: Mapping[str, Tensor]) -> Layer:
    parts = {}
    for part, tail in KEYS.items():
        shape = _row(part, place.out_features or 1)
        try:
            parts[part] = tensors[f"{key}.{tail}"].reshape(shape)
        except (KeyError, RuntimeError) as error:
            raise efface.BadArtifact(
                f"{os.fspath(path)}: {key}.{tail} is missing or does not fit {place.name}"
            ) from error
    return Layer(**parts)


def _row(part: str, width: int) -> tuple[int, ...]:
    """The shape of a part for one concept."""
    return (1,) if part in SCALARS else (1, width, -1) if part in RANKED else (1, width)


def _written(layers: Mapping[str, Layer]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for point, layer in layers.items():
        for part, tail in KEYS.items():
            tensor = getattr(layer, part).float().reshape(_shape(part, layer)).clone()
            tensors[f"{_key(point.partition('.')[2])}.{tail}"] = tensor
        tensors[f"{_key(point.partition('.')[2])}.{ALPHA}"] = torch.tensor(1.0)
    return tensors


def _shape(part: str, layer: Layer) -> tuple[int, ...]:
    width = layer.channels
    if part in ("map_basis", "update"):
        return (width, -1)
    shapes = {"centre": (1, width), "gate_basis": (1, width, -1), "slope": (1,), "threshold": ()}
    return shapes.get(part, (1, 1, width))


def _key(path: str) -> str:
    return PREFIX + path.replace(".", "_")
