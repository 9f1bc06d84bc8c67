"""What a fit has computed so far, on disk, so that an interrupted one goes on to the same result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from efface.errors import EffaceError
from efface.writing import write

if TYPE_CHECKING:
    import torch
    from torch import Tensor

METADATA = "efface"


@dataclass(frozen=True)
class State:
    """Tensors and plain facts (JSON) of a fit under way."""

    tensors: dict[str, Tensor]
    facts: Any = None

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under a prefix, by the rest of their names."""
        return {name.removeprefix(prefix): value for name, value in self.tensors.items() if name.startswith(prefix)}


@dataclass(frozen=True)
class Checkpoint:
    """One file, named by all that its content depends on; without a path nothing is kept.

    Made by `run.checkpoint(...)`. A file is written as a whole or not at all.
    """

    path: Path | None

    @classmethod
    def of(cls, folder: Path | None, name: str, *identity: object) -> Checkpoint:
        """The file for a name and an identity: JSON in which tensors may stand."""
        if folder is None:
            return cls(None)
        return cls(folder / f"{name}-{digest(identity)[:32]}.safetensors")

    def save(self, tensors: Mapping[str, Tensor], facts: Any = None) -> None:
        """Write the state in one step; CannotSave where that fails."""
        if self.path is None:
            return
        from safetensors.torch import save

        there = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        write(self.path, save(there, {METADATA: json.dumps(facts)}), make_folder=True)

    def load(self) -> State | None:
        """The state that was saved, None where there is none; EffaceError for a file that cannot be read."""
        if self.path is None or not self.path.is_file():
            return None
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path, "pt") as file:
                facts = json.loads(file.metadata()[METADATA])
                return State({name: file.get_tensor(name) for name in file.keys()}, facts)  # noqa: SIM118
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise EffaceError(f"{self.path}: not a checkpoint of this fit ({error}); delete it") from error


def digest(identity: object) -> str:
    """sha256 of JSON that may hold tensors; equal for equal content only."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True, default=_hashed).encode()).hexdigest()


def _hashed(value: Any) -> list[Any]:
    import torch

    if not isinstance(value, torch.Tensor):
        raise EffaceError(f"A checkpoint's identity holds JSON and tensors, not {value!r}")
    data = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return [str(value.dtype), list(value.shape), hashlib.sha256(data.numpy().tobytes()).hexdigest()]


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Moments and step counts of every parameter, named by its place and what it is: what a checkpoint keeps."""
    state = optimizer.state_dict()["state"]
    return {f"{place}.{name}": value for place, entry in state.items() for name, value in entry.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put `optimizer_tensors` back."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        place, _, name = key.partition(".")
        state.setdefault(int(place), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
