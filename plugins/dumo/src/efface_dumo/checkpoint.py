"""The state of a training on disk, so that an interrupted fit goes on to the same result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

import efface
from efface.writing import write

METADATA = "dumo"


@dataclass(frozen=True)
class State:
    """Tensors and plain facts of a training after some step."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under a prefix, by the rest of their names."""
        return {name.removeprefix(prefix): value for name, value in self.tensors.items() if name.startswith(prefix)}


@dataclass(frozen=True)
class Checkpoint:
    """One file for one training: `identity` is all that its result depends on; without a folder nothing is kept."""

    folder: Path | None
    stage: str
    identity: Mapping[str, Any]

    @property
    def path(self) -> Path | None:
        digest = hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()
        return None if self.folder is None else self.folder / f"dumo-{self.stage}-{digest[:16]}.safetensors"

    def save(self, state: State) -> None:
        """Write the state; CannotSave where that fails."""
        if self.path is None:
            return
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.tensors.items()}
        write(self.path, safetensors.torch.save(tensors, {METADATA: json.dumps(state.facts)}), make_folder=True)

    def load(self) -> State | None:
        """The state that was saved, None where there is none; EffaceError for a file that cannot be read."""
        if self.path is None or not self.path.is_file():
            return None
        try:
            with safe_open(self.path, "pt") as file:
                facts = json.loads(file.metadata()[METADATA])
                return State({name: file.get_tensor(name) for name in file.keys()}, facts)  # noqa: SIM118
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise efface.EffaceError(f"{self.path}: not a checkpoint of this fit ({error}); delete it") from error


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Moments and step counts of every parameter, named by its place and what it is."""
    state = optimizer.state_dict()["state"]
    return {f"{place}.{name}": value for place, entry in state.items() for name, value in entry.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put `optimizer_tensors` back."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        place, _, name = key.partition(".")
        state.setdefault(int(place), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
