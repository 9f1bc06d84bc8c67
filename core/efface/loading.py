"""From a name to a pipeline."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from efface.errors import UnknownModel, unknown
from efface.registry import Registry
from efface.single_file import checked_file, single_file
from efface_hooks.errors import UnsupportedPipeline

if TYPE_CHECKING:
    import torch


Offload = Literal["model", "sequential"]
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")


def load(
    model: str | os.PathLike[str],
    *,
    config: str | os.PathLike[str] | None = None,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    offload: Offload | None = None,
    registry: Registry | None = None,
) -> Any:
    """A diffusers pipeline: a model that a plugin brings ("picturebook"), a folder, a single file, or a hub id.

    A single file is a safetensors checkpoint in the layout of Stable Diffusion's own code. `config` names a diffusers
    folder of the same family, of which everything but the weights is taken; without it diffusers asks the hub. `dtype`
    is float32 unless given, `device` the CPU unless given. With `offload` the weights stay in main memory and come to
    the device model by model, or layer by layer ("sequential"). UnknownModel lists the installed models and says what
    was looked for; UnsupportedPipeline says what a pipeline lacks.
    """
    import torch
    from diffusers import DiffusionPipeline

    from efface_hooks import points

    source = _source(model, registry or Registry.installed())
    settings = {"dtype": dtype or torch.float32}
    _check_config(config, source)
    try:
        if isinstance(source, Path) and source.is_file():
            pipe = single_file(source, config, **settings)
        else:
            local = isinstance(source, Path)
            pipe = DiffusionPipeline.from_pretrained(source, local_files_only=local, **settings, **_quiet(source))
    except UnsupportedPipeline:
        raise
    except Exception as error:  # a damaged folder makes diffusers raise all kinds
        raise UnknownModel(f"Cannot load {str(model)!r}: {_first_line(error)}") from error
    points(pipe)
    return _placed(pipe, device, offload)


def _placed(pipe: Any, device: str | torch.device | None, offload: Offload | None) -> Any:
    if offload == "model":
        pipe.enable_model_cpu_offload(device=device)
    elif offload == "sequential":
        pipe.enable_sequential_cpu_offload(device=device)
    elif device is not None:
        pipe = pipe.to(device)
    return pipe


def _check_config(config: str | os.PathLike[str] | None, source: Path | str) -> None:
    if config is None:
        return
    if not (isinstance(source, Path) and source.is_file()):
        raise UnknownModel(f"config goes with a single file; {source} brings its own")
    _checked(Path(config))


def _source(model: str | os.PathLike[str], registry: Registry) -> Path | str:
    path = Path(model)
    if path.is_dir():
        return _checked(path)
    if path.is_file():
        return checked_file(path)
    name = str(model)
    models = registry.models()
    if name in models or ":" in name:
        return _checked(registry.model(name).path())
    if HUB_ID.fullmatch(name):
        return name
    raise UnknownModel(
        unknown("model", name, models) + " Give one of these, a local folder or file, or a hub id (owner/name)"
    )


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
