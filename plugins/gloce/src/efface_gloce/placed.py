"""Named tensors on whatever device and in whatever precision they are needed."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class Placed:
    """Tensors that are converted once for each device and precision they are used in."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._given = dict(tensors)
        self._converted: dict[tuple[torch.device, torch.dtype], dict[str, Tensor]] = {}

    def beside(self, x: Tensor) -> dict[str, Tensor]:
        """The tensors where x is, as precise as x."""
        key = (x.device, x.dtype)
        if key not in self._converted:
            self._converted[key] = {name: tensor.to(*key) for name, tensor in self._given.items()}
        return self._converted[key]
