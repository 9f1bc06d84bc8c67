"""How much memory a model's weights will take, read from the heads of its files."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from efface.errors import EffaceError
from efface.index import Index
from efface.variants import chosen, files_of, weights_of
from efface.wording import size

if TYPE_CHECKING:
    import torch

    from efface.source import Source


@dataclass(frozen=True)
class Need:
    """Bytes of a model's weights once they are loaded, and how many are free on the device; None where nothing tells.

    `smaller` says how they would take less; activations come on top of them.
    """

    model: str
    device: str
    weights: int
    free: int | None
    smaller: str = ""

    @classmethod
    def of(cls, source: Source, dtype: torch.dtype, device: str) -> Need | None:
        """What a source needs; None for one that is not on this machine, or is damaged, which reading it will say."""
        import torch

        try:
            needed = weights_bytes(source.local, dtype) if source.local else None
        except (OSError, ValueError, LookupError, TypeError, AttributeError, EffaceError):
            return None
        if needed is None:
            return None
        return cls(source.name, device, needed, free_bytes(torch.device(device)), _smaller(dtype, device))

    @property
    def fits(self) -> bool:
        return self.free is None or self.weights <= self.free

    def __str__(self) -> str:
        free = "" if self.free is None else f" and {size(self.free)} are free"
        return f"{self.model} needs {size(self.weights)} on {self.device}{free}" + (
            f"; {self.smaller}" if self.smaller else ""
        )


def weights_bytes(source: Path, dtype: torch.dtype) -> int | None:
    """Bytes of the weights of a diffusers folder or a single file once they are loaded; activations come on top.

    None where a part has no safetensors file, whose head would tell.
    """
    files = [source] if source.is_file() else list(_files(source))
    if not all(file.suffix == ".safetensors" for file in files):
        return None
    return dtype.itemsize * sum(_elements(file) for file in files)


def free_bytes(device: torch.device) -> int | None:
    """Bytes that are free on a device; None where nothing tells."""
    if device.type == "cpu":
        import psutil

        return int(psutil.virtual_memory().available)
    import torch

    tell = getattr(torch.get_device_module(device), "mem_get_info", None)
    return int(tell(device)[0]) if tell else None


def _smaller(dtype: torch.dtype, device: str) -> str:
    if dtype.itemsize > 2:
        return "bfloat16 takes half of float32 (dtype=torch.bfloat16, --dtype bfloat16)"
    return "" if device == "cpu" else "offloading takes less (offload='model', --offload model)"


def _files(folder: Path) -> Iterator[Path]:
    """The files of weights that loading a folder reads; a part of a download that is not there yet is a LookupError."""
    index = Index.read(folder)
    variant = chosen(index, files_of(folder))
    for part in index.present:
        files = weights_of(folder / part, variant)
        if not files and (folder / part / "config.json").is_file():
            raise LookupError(f"{folder / part} has no weights")
        yield from files


def _elements(file: Path) -> int:
    """Numbers in a safetensors file; its head is a length of eight bytes and that much JSON."""
    with file.open("rb") as stream:
        head = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    return sum(math.prod(entry["shape"]) for name, entry in head.items() if name != "__metadata__")
