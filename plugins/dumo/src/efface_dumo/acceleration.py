"""accelerate for the time of one fit: mixed precision, loss scaling and the backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import torch

import efface

if TYPE_CHECKING:
    from accelerate import Accelerator

Precision = Literal["no", "fp16", "bf16"]


@contextmanager
def accelerated(device: torch.device, precision: Precision) -> Iterator[Accelerator]:
    """An accelerator for the device that the model is on.

    accelerate keeps its state for a whole process and refuses another precision in it; where this fit was the first
    to use it, that state is gone afterwards.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, PartialState

    if precision == "fp16" and device.type == "cpu":
        raise efface.BadSetting("precision fp16 needs a GPU; a CPU can do bf16")
    mine, mine_partly = not AcceleratorState._shared_state, not PartialState._shared_state
    try:
        yield Accelerator(cpu=device.type == "cpu", mixed_precision=precision)
    except ValueError as error:
        if "AcceleratorState has already been initialized" in str(error):
            raise efface.EffaceError(
                f"This process uses accelerate with other settings already, so that DuMo cannot train: {error}"
            ) from error
        raise
    finally:
        if mine:
            AcceleratorState._reset_state(reset_partial_state=mine_partly)
