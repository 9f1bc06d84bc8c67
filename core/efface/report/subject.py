"""The model that is shown, in a few facts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Subject:
    """A pipeline by name, class, number of parameters per part, precision, device and scheduler."""

    name: str
    pipeline: str
    parameters: dict[str, int]
    dtype: str
    device: str
    scheduler: str

    @classmethod
    def of(cls, pipe: Any, model: str) -> Subject:
        """`model` is what it was loaded by; of a folder only the name is kept."""
        return cls(
            name=shown_name(model),
            pipeline=type(pipe).__name__,
            parameters=_parameters(pipe),
            dtype=str(pipe.unet.dtype).removeprefix("torch."),
            device=str(pipe._execution_device),
            scheduler=type(pipe.scheduler).__name__,
        )

    @property
    def total(self) -> int:
        return sum(self.parameters.values())

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "pipeline": self.pipeline,
            "parameters": dict(self.parameters),
            "parameters_in_all": self.total,
            "dtype": self.dtype,
            "device": self.device,
            "scheduler": self.scheduler,
        }


def shown_name(model: str) -> str:
    """A model's name or hub id as it is, a folder without the way to it."""
    return Path(model).resolve().name if Path(model).is_dir() else model


def _parameters(pipe: Any) -> dict[str, int]:
    networks = {name: part for name, part in pipe.components.items() if isinstance(part, nn.Module)}
    return {name: sum(weight.numel() for weight in part.parameters()) for name, part in networks.items()}
