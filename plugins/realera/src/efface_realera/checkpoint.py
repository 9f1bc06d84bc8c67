"""Where a long fit keeps its state, to go on after a break with the same bits."""

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

import efface
from efface.writing import write


@dataclass(frozen=True)
class Checkpoint:
    """One file of named tensors, written whole or not at all; without a folder it keeps nothing.

    The file's name carries a digest of all that the result depends on, so that another run in the same folder has
    a file of its own.
    """

    path: Path | None

    @classmethod
    def of(cls, folder: Path | None, *facts: object) -> Checkpoint:
        digest = hashlib.sha256()
        for fact in facts:
            digest.update(_bytes(fact))
        return cls(None if folder is None else folder / f"realera-{digest.hexdigest()[:16]}.safetensors")

    def save(self, tensors: Mapping[str, Tensor]) -> None:
        if self.path is not None:
            host = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            write(self.path, safetensors.torch.save(host))

    def load(self) -> dict[str, Tensor] | None:
        """What was saved last; EffaceError where the file is no checkpoint."""
        if self.path is None or not self.path.is_file():
            return None
        try:
            found: dict[str, Tensor] = safetensors.torch.load(self.path.read_bytes())
        except (OSError, safetensors.SafetensorError) as error:
            raise efface.EffaceError(f"{self.path} is no checkpoint: {error}; delete it to begin anew") from error
        return found


def optimizer_state(optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor]) -> dict[str, Tensor]:
    """The optimizer's state as named tensors."""
    return {
        f"optimizer.{index}.{name}": torch.as_tensor(value)
        for index, parameter in enumerate(parameters)
        for name, value in optimizer.state[parameter].items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor], tensors: Mapping[str, Tensor]
) -> None:
    for index, parameter in enumerate(parameters):
        prefix = f"optimizer.{index}."
        state = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        # Adam keeps its count of steps on the CPU, whatever the device of the parameter.
        optimizer.state[parameter] = {
            name: value if name == "step" else value.to(parameter.device) for name, value in state.items()
        }


def _bytes(fact: object) -> bytes:
    if isinstance(fact, Tensor):
        return fact.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    plain: Any = fact
    return json.dumps(plain, sort_keys=True).encode()
