"""From a name to a pipeline."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from efface.devices import Offload, placed
from efface.errors import EffaceError, UnknownModel
from efface.index import INDEX
from efface.memory import Need
from efface.registry import Registry
from efface.single_file import single_file
from efface.source import Source, located
from efface_hooks.errors import HookError, listed

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)


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
    the device model by model, or layer by layer ("sequential"). Where there are no plain weights, those of the one
    variant that there is are read, such as fp16. Everything that can be refused is refused before weights are read:
    UnknownModel lists the installed models and says what was looked for, or what a folder lacks; UnsupportedPipeline
    says what a pipeline lacks; EffaceError for a `dtype`, `device` or `offload` that there is not. Weights that need
    more memory than is free are warned of.
    """
    import torch

    precision = _checked_dtype(torch.float32 if dtype is None else dtype)
    where = placed(device, offload)
    source = located(model, config, registry or Registry.installed())
    need = Need.of(source, precision, where)
    if need is not None and not need.fits and offload is None:
        warnings.warn(str(need), stacklevel=2)
    if source.variant is not None:
        log.info("%s: reading the %s variant of its weights; a part has no plain ones", source.name, source.variant)
    return opened(source, precision, where, offload)


def opened(source: Source, dtype: torch.dtype, device: str, offload: Offload | None) -> Any:
    """The pipeline of a source, with its weights, on a device; UnknownModel for what cannot be read."""
    from efface_hooks import points

    try:
        pipe = _read(source, dtype)
    except HookError:
        raise
    except Exception as error:  # a damaged folder makes diffusers raise all kinds
        raise UnknownModel(f"Cannot load {source.name!r}: {_first_line(error)}") from error
    points(pipe)
    if offload == "model":
        pipe.enable_model_cpu_offload(device=device)
    elif offload == "sequential":
        pipe.enable_sequential_cpu_offload(device=device)
    elif device != "cpu":
        pipe = pipe.to(device)
    return pipe


def _read(source: Source, dtype: torch.dtype) -> Any:
    from diffusers import DiffusionPipeline

    place = source.place
    if isinstance(place, Path) and place.is_file():
        return single_file(place, source.config, dtype=dtype)
    variant = {} if source.variant is None else {"variant": source.variant}
    local = isinstance(place, Path)
    return DiffusionPipeline.from_pretrained(place, local_files_only=local, dtype=dtype, **variant, **_quiet(place))


def _checked_dtype(dtype: object) -> torch.dtype:
    import torch

    known = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
    if not isinstance(dtype, torch.dtype) or dtype not in known:
        raise EffaceError(f"dtype must be one of {listed(map(str, known))}, not {dtype!r}")
    return dtype


def _quiet(source: Path | str) -> dict[str, Any]:
    """Pipelines without a safety checker would otherwise warn about it on every load."""
    index = source / INDEX if isinstance(source, Path) else None
    if index is not None and '"safety_checker"' in index.read_text(encoding="utf-8"):
        return {"requires_safety_checker": False}
    return {}


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    said = [] if isinstance(error, OSError | ValueError) and lines else [type(error).__name__]
    return ": ".join(said + lines[:1])
