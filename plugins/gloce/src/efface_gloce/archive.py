"""Statistics on disk, under the hash of everything that they depend on, so that they are collected once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from efface.writing import write
from efface_gloce.moments import Moments

FORMAT = 1


@dataclass(frozen=True)
class Archive:
    """Files in a folder; without a folder nothing is kept. `circumstances` is JSON: what every entry depends on."""

    folder: Path | None
    circumstances: Mapping[str, Any]

    def has_moments(self, prompt: str, embedding: str) -> bool:
        """Whether the moments of a prompt have been kept; a file that is not whole does not count."""
        path = self._path("moments", prompt, embedding)
        try:
            with safetensors.safe_open(path or "", "pt"):
                return True
        except (OSError, safetensors.SafetensorError):
            return False

    def moments(self, prompt: str, embedding: str) -> dict[str, Moments]:
        """The moments of a prompt at each point, which have been kept."""
        tensors = self._read(self._path("moments", prompt, embedding)) or {}
        names = dict.fromkeys(name.rpartition(".")[0] for name in tensors)
        return {
            name: Moments(
                int(tensors[f"{name}.count"]), *(tensors[f"{name}.{part}"] for part in ("shift", "total", "scatter"))
            )
            for name in names
        }

    def keep_moments(self, prompt: str, embedding: str, found: Mapping[str, Moments]) -> None:
        tensors: dict[str, Tensor] = {}
        for name, one in found.items():
            tensors |= {f"{name}.shift": one.shift, f"{name}.total": one.total, f"{name}.scatter": one.scatter}
            tensors[f"{name}.count"] = torch.tensor(one.count)
        self._write(self._path("moments", prompt, embedding), tensors)

    def peaks(self, prompt: str, embedding: str, gate: str) -> dict[str, Tensor] | None:
        """The peaks of one concept's gate on a prompt's pictures at each point; None where they have not been kept."""
        return self._read(self._path("peaks", prompt, embedding, gate))

    def keep_peaks(self, prompt: str, embedding: str, gate: str, found: Mapping[str, Tensor]) -> None:
        self._write(self._path("peaks", prompt, embedding, gate), found)

    def begun(self, task: Sequence[str], missing: Sequence[str]) -> list[str]:
        """The prompts that were missing when a task was begun: now, or before it was interrupted."""
        path = self._path("begun", *task, suffix="json")
        if path is None or not missing:
            return list(missing)
        try:
            return [str(prompt) for prompt in json.loads(path.read_text())]
        except (OSError, ValueError):
            write(path, json.dumps(list(missing)).encode())
            return list(missing)

    def ended(self, task: Sequence[str]) -> None:
        """Nothing of the task is missing any more."""
        path = self._path("begun", *task, suffix="json")
        if path is not None:
            path.unlink(missing_ok=True)

    def _path(self, *what: str, suffix: str = "safetensors") -> Path | None:
        if self.folder is None:
            return None
        text = json.dumps([FORMAT, *what, self.circumstances], sort_keys=True, default=str)
        return self.folder / f"gloce-{what[0]}-{hashlib.sha256(text.encode()).hexdigest()}.{suffix}"

    @staticmethod
    def _read(path: Path | None) -> dict[str, Tensor] | None:
        """A file that is not there, or is not whole, counts as not kept."""
        if path is None or not path.is_file():
            return None
        try:
            found: dict[str, Tensor] = safetensors.torch.load(path.read_bytes())
        except safetensors.SafetensorError:
            return None
        return found

    @staticmethod
    def _write(path: Path | None, tensors: Mapping[str, Tensor]) -> None:
        if path is not None:
            write(path, safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()}))


def digest(*tensors: Tensor | None) -> str:
    """A hash of the bytes of tensors."""
    found = hashlib.sha256()
    for tensor in tensors:
        if tensor is not None:
            found.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
            found.update(tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
