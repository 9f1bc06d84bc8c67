"""The U-Net with changed weights, without a write to any of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")


class Edited(nn.Module):
    """Runs work with W + change in place of some weights W; gradients reach the changes and nothing else."""

    def __init__(self, unet: nn.Module, parameters: Mapping[str, str]) -> None:
        super().__init__()
        self.unet = unet
        weights = dict(unet.named_parameters())
        self.base = {name: weights[parameter].detach() for name, parameter in parameters.items()}
        self._parameters_of = {name: f"unet.{parameter}" for name, parameter in parameters.items()}

    def zeros(self) -> dict[str, Tensor]:
        """A change of nothing, float32, for each layer."""
        return {name: torch.zeros_like(base, dtype=torch.float32) for name, base in self.base.items()}

    def run(self, changes: Mapping[str, Tensor], work: Callable[[], T]) -> T:
        """What `work()` returns while the changes are in place; they are out again when it ends in any way."""
        weights = {
            self._parameters_of[name]: (self.base[name].float() + change).to(self.base[name].dtype)
            for name, change in changes.items()
        }
        found: T = torch.func.functional_call(self, weights, (work,), tie_weights=False)
        return found

    def forward(self, work: Callable[[], Any]) -> Any:
        return work()
