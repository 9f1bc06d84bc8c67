"""How much memory a model's weights will take, read from the heads of its files."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

WEIGHTS = re.compile(r"(diffusion_pytorch_model|model)(-\d+-of-\d+)?\.safetensors")


def weights_bytes(source: Path, dtype: torch.dtype) -> int:
    """Bytes of the weights of a diffusers folder or a single file once they are loaded; activations come on top."""
    return dtype.itemsize * sum(_elements(file) for file in _files(source))


def free_bytes(device: torch.device) -> int | None:
    """Bytes that are free on a device; None where nothing tells."""
    if device.type == "cpu":
        import psutil

        return int(psutil.virtual_memory().available)
    import torch

    tell = getattr(torch.get_device_module(device), "mem_get_info", None)
    return int(tell(device)[0]) if tell else None


def _files(source: Path) -> Iterator[Path]:
    if source.is_file():
        yield source
        return
    for component in json.loads((source / "model_index.json").read_text()):
        folder = source / component
        if folder.is_dir():
            yield from (file for file in sorted(folder.iterdir()) if WEIGHTS.fullmatch(file.name))


def _elements(file: Path) -> int:
    """Numbers in a safetensors file; its head is a length of eight bytes and that much JSON."""
    with file.open("rb") as stream:
        head = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    return sum(math.prod(entry["shape"]) for name, entry in head.items() if name != "__metadata__")
