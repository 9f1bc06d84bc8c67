"""A pipeline from one safetensors file in the layout of Stable Diffusion's own code."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from efface.errors import UnknownModel
from efface.index import Index
from efface_hooks.errors import UnsupportedPipeline

if TYPE_CHECKING:
    import torch

UNET = "model.diffusion_model.input_blocks."
READER = ".attn2.to_k.weight"
SECOND_ENCODER = "conditioner.embedders.1."

Shapes = dict[str, tuple[int, ...]]


def single_file(file: Path, config: Path | None, *, dtype: torch.dtype) -> Any:
    """The pipeline; `config` is a diffusers folder of the same family, of which the weights are not read.

    Without a config diffusers asks the hub for one.
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


def check_contents(file: Path, config: Path | None) -> None:
    """UnsupportedPipeline if the file holds no U-Net, UnknownModel if it is damaged or `config` of another family."""
    found = shapes(file)
    if not any(name.startswith(UNET) for name in found):
        raise UnsupportedPipeline(
            f"{file} has no tensor {UNET}...; efface edits the U-Nets of Stable Diffusion 1, 2 and XL, "
            f"and here are {_some(found)}"
        )
    if config is not None:
        index = Index.read(config)
        index.check()
        index.check_folders(config)
        _check_family(file, found, config, index)


def shapes(file: Path) -> Shapes:
    """Names and shapes of the tensors in a safetensors file; UnknownModel for a damaged one."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as tensors:
            names = list(tensors.keys())
            return {name: tuple(tensors.get_slice(name).get_shape()) for name in names}
    except SafetensorError as error:
        raise UnknownModel(f"Cannot load {str(file)!r}, which is damaged: {error}") from error


def _check_family(file: Path, found: Shapes, config: Path, index: Index) -> None:
    """Families differ in how many text encoders they have and in how wide the texts are that the U-Net reads."""
    there = {_text_width(config / "unet" / "config.json")}
    here = {shape[1] for name, shape in found.items() if name.startswith(UNET) and name.endswith(READER)}
    encoders = 1 + any(name.startswith(SECOND_ENCODER) for name in found)
    if len({"text_encoder", "text_encoder_2"} & set(index.present)) != encoders or (here and here != there):
        raise UnknownModel(
            f"config {config} is of another family ({index.pipeline}, texts {_numbers(there)} wide) than {file} "
            f"({_class(found)}, texts {_numbers(here)} wide); name a diffusers folder of the file's own family"
        )


def _text_width(form: Path) -> object:
    try:
        return json.loads(form.read_text(encoding="utf-8"))["cross_attention_dim"]
    except (ValueError, LookupError, TypeError) as error:
        raise UnknownModel(f"{form} does not say how wide the texts are that the U-Net reads") from error


def _pipeline(file: Path, config: Path | None) -> str:
    return _class(shapes(file)) if config is None else Index.read(config).pipeline


def _class(found: Iterable[str]) -> str:
    xl = any(name.startswith(SECOND_ENCODER) for name in found)
    return "StableDiffusionXLPipeline" if xl else "StableDiffusionPipeline"


def _numbers(found: Iterable[object]) -> str:
    return ", ".join(sorted(map(str, found))) or "?"


def _some(names: Iterable[str]) -> str:
    beginnings = sorted({".".join(name.split(".")[:2]) for name in names})
    return ", ".join(beginnings[:4]) + (", ..." if len(beginnings) > 4 else "")
