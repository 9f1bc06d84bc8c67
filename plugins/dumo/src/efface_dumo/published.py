"""Checkpoints in the published layouts: reading them as erasures, and writing erasures as such."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
import safetensors.torch
import torch
from torch import Tensor

import efface
from efface.errors import unknown
from efface.fingerprint import fingerprint
from efface.settings import build
from efface.writing import write
from efface_dumo.attaching import new_modulation, stored_branch
from efface_dumo.branch import ENCODER, Branch
from efface_dumo.conditions import names_of
from efface_dumo.dumo import DuMo
from efface_dumo.layouts import DIFFUSERS, LDM, Names, layouts
from efface_dumo.modulation import TABLES
from efface_dumo.packing import Part, filled_modulation, packed, unpacked
from efface_dumo.skeleton import base_tensors, config_of
from efface_dumo.storage import kept

WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
TABLE = "time_scale"
CONTROL = "control_model."


def imported(
    pipe: Any,
    path: str | os.PathLike[str],
    concept: str | efface.Concept,
    *,
    table: str | os.PathLike[str] | None = None,
    settings: Mapping[str, object] | None = None,
    registry: efface.Registry | None = None,
) -> efface.Erasure:
    """A published checkpoint as an erasure for the pipeline that it was made for.

    `path` is a file or a diffusers folder, `table` a `time_scale.npy`; without one the folder's or the checkpoint's
    own is taken, and where there is none the branch acts in full. A checkpoint does not say what it erases, so
    `concept` does; its phrases are what a gate compares prompts with. `settings` are the gate's and how to store, in
    float16 unless they say so.
    Raises BadArtifact for tensors that are no branch of this U-Net. Nothing in a file is executed.
    """
    registry = registry or efface.Registry.installed()
    given = concept if isinstance(concept, efface.Concept) else efface.Concept(concept)
    model = efface.Model(pipe, registry)
    config = config_of(model.unet)
    branch = Branch(config)
    found = _read(Path(path))
    own_table = found.pop(TABLE, None)
    scales = _table(Path(path), table, own_table, len(branch.joints))
    shape = {"table": "none"} if scales is None else {"table": "time_layer", "bins": len(scales)}
    method = build(DuMo, {"store": "float16", **(settings or {}), **shape})
    base = base_tensors(model.unet, list(branch.encoder.state_dict()))
    named = {f"{ENCODER}.{name}": tensor.cpu() for name, tensor in base.items()}
    stored = kept(_translated(branch, found, Path(path)), named, method.store, method.rank)
    embeddings, ids = names_of(model, given.phrases)
    part = Part(stored, {} if scales is None else {"table": scales}, embeddings, given.phrases, ids)
    points = model.points("skip", "mid")
    return efface.Erasure.of(
        method,
        packed([part], config, sorted(set(pipe.tokenizer.all_special_ids))),
        efface.Request((given,)),
        origin=registry.origin(DuMo),
        base=fingerprint(pipe, points),
        points=[point.name for point in points],
    )


def export(
    erasure: efface.Erasure,
    folder: str | os.PathLike[str],
    *,
    layout: str = DIFFUSERS,
    concept: int = 0,
    pipe: Any = None,
) -> None:
    """Write one concept of an erasure as a checkpoint: weights, `config.json` and, for a table, `time_scale.npy`.

    `pipe` is needed for a branch that is stored as differences. Raises BadSetting for a modulation that is no table,
    because the published scripts know no other.
    """
    method = build(DuMo, erasure.header.settings)
    if method.table not in (*TABLES, "none"):
        raise efface.BadSetting(f"The published layouts hold a table or none; this erasure's is {method.table!r}")
    fit = erasure.fit
    config, part = fit.facts["unet"], unpacked(fit)[concept]
    branch = Branch(config)
    known = layouts(branch)
    if layout not in known:
        raise efface.EffaceError(unknown("layout", layout, known, "there are"))
    tensors = stored_branch(part, branch, pipe).tensors(torch.device("cpu"), torch.float32)
    prefix = CONTROL if layout == LDM else ""
    data = safetensors.torch.save({prefix + theirs: tensors[own] for own, theirs in known[layout].items()})
    write(Path(folder) / WEIGHTS[0], data, make_folder=True)
    write(Path(folder) / "config.json", json.dumps({"_class_name": "DuMo", **config}, indent=2).encode())
    if method.table != "none":
        modulation = filled_modulation(new_modulation(method, len(branch.joints), 1), part.modulation)
        file = io.BytesIO()
        numpy.save(file, modulation.full_table().numpy())
        write(Path(folder) / f"{TABLE}.npy", file.getvalue())


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file or a folder, without the prefix that the latent-diffusion code gives the branch."""
    file = path
    if path.is_dir():
        file = next((path / name for name in WEIGHTS if (path / name).is_file()), path / WEIGHTS[0])
    try:
        if file.suffix == ".safetensors":
            found = safetensors.torch.load_file(file)
        else:
            found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise efface.BadArtifact(f"{file}: {error}") from error
    found = found.get("state_dict", found)
    ours = {name.removeprefix(CONTROL): tensor for name, tensor in found.items() if name.startswith(CONTROL)}
    return ours or dict(found)


def _translated(branch: Branch, found: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The branch's tensors under our names, from whichever layout the file has."""
    names = _layout(branch, found, path)
    shapes = {own: tensor.shape for own, tensor in branch.state_dict().items()}
    for own, theirs in names.items():
        if found[theirs].numel() != shapes[own].numel():
            raise efface.BadArtifact(
                f"{path}: {theirs} is {tuple(found[theirs].shape)}; this U-Net's branch needs {tuple(shapes[own])}"
            )
    return {own: found[theirs].view(shapes[own]) for own, theirs in names.items()}


def _layout(branch: Branch, found: Mapping[str, Tensor], path: Path) -> Names:
    known = layouts(branch)
    nearest = max(known, key=lambda layout: len(known[layout].values() & found.keys()))
    odd = sorted(set(known[nearest].values()) ^ found.keys())
    if odd:
        what = "has" if odd[0] in found else "lacks"
        raise efface.BadArtifact(
            f"{path}: no branch of this U-Net in any of the layouts {', '.join(known)}; nearest is {nearest}, but it "
            f"{what} {odd[0]} ({len(odd)} such tensors)"
        )
    return known[nearest]


def _table(path: Path, given: str | os.PathLike[str] | None, own: Tensor | None, layers: int) -> Tensor | None:
    """The table (bins, layers): the file's that was named, the folder's, the checkpoint's, or None."""
    beside = path / f"{TABLE}.npy"
    file = Path(given) if given is not None else beside if beside.is_file() else None
    if file is None and own is None:
        return None
    try:
        scales = own if file is None else torch.from_numpy(numpy.load(file, allow_pickle=False))
    except (OSError, ValueError, TypeError) as error:
        raise efface.BadArtifact(f"{file}: {error}") from error
    assert scales is not None
    full = scales.float().view(1, -1) if scales.shape == (layers,) else scales.float().view(len(scales), -1)
    if full.shape[1] not in (1, layers):
        raise efface.BadArtifact(f"A table for this U-Net has {layers} columns, not {tuple(scales.shape)}")
    return full.expand(-1, layers).contiguous()
