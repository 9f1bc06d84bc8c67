"""A pipeline from one safetensors file in the layout of Stable Diffusion's own code."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from efface.errors import UnknownModel
from efface_hooks.errors import UnsupportedPipeline

if TYPE_CHECKING:
    import torch

UNET = "model.diffusion_model.input_blocks."
SDXL = "conditioner.embedders.1."


def single_file(file: Path, config: str | os.PathLike[str] | None, *, dtype: torch.dtype) -> Any:
    """The pipeline; `config` is a diffusers folder of the same family, of which the weights are not read.

    Without a config diffusers asks the hub for one. UnsupportedPipeline if the file holds no U-Net.
    """
    import diffusers

    pipeline = getattr(diffusers, _pipeline(file, config))
    quiet = {} if config is None else {"config": os.fspath(config), "local_files_only": True}
    try:
        return pipeline.from_single_file(os.fspath(file), dtype=dtype, **quiet)
    except OSError as error:
        if config is not None:
            raise
        remedy = "config can name a diffusers folder of the same family instead (--config FOLDER)"
        raise UnknownModel(f"{file} says nothing of its tokenizer, and the hub was not reached; {remedy}") from error


def checked_file(file: Path) -> Path:
    """The file, if it is a safetensors file; others can run code while they are read."""
    if file.suffix != ".safetensors":
        raise UnknownModel(f"{file} is no safetensors file; convert it first, other kinds can run code when read")
    return file


def _pipeline(file: Path, config: str | os.PathLike[str] | None) -> str:
    from safetensors import safe_open

    with safe_open(file, "pt") as tensors:
        names = list(tensors.keys())
    if not any(name.startswith(UNET) for name in names):
        raise UnsupportedPipeline(
            f"{file} has no tensor {UNET}...; efface edits the U-Nets of Stable Diffusion 1, 2 and XL, "
            f"and here are {_some(names)}"
        )
    if config is not None:
        return str(json.loads((Path(config) / "model_index.json").read_text())["_class_name"])
    xl = any(name.startswith(SDXL) for name in names)
    return "StableDiffusionXLPipeline" if xl else "StableDiffusionPipeline"


def _some(names: list[str]) -> str:
    beginnings = sorted({".".join(name.split(".")[:2]) for name in names})
    return ", ".join(beginnings[:4]) + (", ..." if len(beginnings) > 4 else "")
