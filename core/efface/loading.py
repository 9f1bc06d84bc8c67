"""From a name to a pipeline."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from efface.errors import UnknownModel, unknown
from efface.registry import Registry

if TYPE_CHECKING:
    import torch


HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")


def load(
    model: str | os.PathLike[str],
    *,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    registry: Registry | None = None,
) -> Any:
    """A diffusers pipeline: a model that a plugin brings ("picturebook"), a local folder, or a hub id.

    `dtype` is float32 unless given, `device` the CPU unless given. UnknownModel lists the installed models and says
    what was looked for; UnsupportedPipeline says what a pipeline lacks.
    """
    import torch
    from diffusers import DiffusionPipeline

    from efface_hooks import points

    source = _source(model, registry or Registry.installed())
    local = isinstance(source, Path)
    try:
        pipe = DiffusionPipeline.from_pretrained(
            source, dtype=dtype or torch.float32, local_files_only=local, **_quiet(source)
        )
    except Exception as error:  # a damaged folder makes diffusers raise all kinds
        raise UnknownModel(f"Cannot load {str(model)!r}: {_first_line(error)}") from error
    points(pipe)
    return pipe if device is None else pipe.to(device)


def _source(model: str | os.PathLike[str], registry: Registry) -> Path | str:
    path = Path(model)
    if path.is_dir():
        return _checked(path)
    name = str(model)
    models = registry.models()
    if name in models or ":" in name:
        return _checked(registry.model(name).path())
    if HUB_ID.fullmatch(name):
        return name
    raise UnknownModel(unknown("model", name, models) + " Give one of these, a local folder or a hub id (owner/name)")


def _checked(folder: Path) -> Path:
    if not (folder / "model_index.json").is_file():
        what = "a folder without model_index.json" if folder.is_dir() else "no folder"
        raise UnknownModel(f"{folder} is {what}: not a diffusers pipeline")
    return folder


def _quiet(source: Path | str) -> dict[str, Any]:
    """Pipelines without a safety checker would otherwise warn about it on every load."""
    index = source / "model_index.json" if isinstance(source, Path) else None
    if index is not None and '"safety_checker"' in index.read_text():
        return {"requires_safety_checker": False}
    return {}


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    said = [] if isinstance(error, OSError | ValueError) and lines else [type(error).__name__]
    return ": ".join(said + lines[:1])
