"""A layer's weights, also while they are offloaded."""

from __future__ import annotations

from torch import Tensor, nn


def weight_of(module: nn.Module, name: str = "weight") -> Tensor:
    """A module's own parameter; where accelerate keeps it until the module runs, that tensor and not a stand-in."""
    weight: Tensor = getattr(module, name)
    kept = getattr(getattr(module, "_hf_hook", None), "weights_map", None)
    return kept[name] if weight.is_meta and kept is not None else weight
