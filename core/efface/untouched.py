"""A promise kept: whatever runs inside leaves a pipeline as it found it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from efface_hooks import Wiring


@contextlib.contextmanager
def untouched(pipe: Any) -> Iterator[None]:
    """Restores, on any way out: training modes, which parameters take gradients, gradients, the global RNGs, and the
    edits that were on the pipeline, which are off inside so that fits are made on the base model."""
    modules = [part for part in pipe.components.values() if isinstance(part, nn.Module)]
    modes = [(module, module.training) for part in modules for module in part.modules()]
    weights = [(weight, weight.requires_grad, weight.grad) for part in modules for weight in part.parameters()]
    devices = [device for device in {weight.device for weight, *_ in weights} if device.type == "cuda"]
    with torch.random.fork_rng(devices=devices), _unedited(pipe):
        try:
            yield
        finally:
            for module, mode in modes:
                module.training = mode
            for weight, wanted, gradient in weights:
                weight.requires_grad_(wanted)
                weight.grad = gradient


@contextlib.contextmanager
def _unedited(pipe: Any) -> Iterator[None]:
    wiring = Wiring.of(pipe)
    if wiring is None:
        yield
        return
    patches = wiring.patches
    wiring.clear()
    try:
        yield
    finally:
        wiring.set(patches)
