"""A promise kept: whatever runs inside leaves a pipeline as it found it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from efface.errors import EffaceError
from efface.insisting import insist
from efface_hooks import Wiring


@contextlib.contextmanager
def untouched(pipe: Any) -> Iterator[None]:
    """Restores, on any way out: training modes, which parameters take gradients, gradients, the global RNGs, and the
    edits that were on the pipeline, which are off inside so that fits are made on the base model."""
    modules = [part for part in pipe.components.values() if isinstance(part, nn.Module)]
    modes = [(module, module.training) for part in modules for module in part.modules()]
    weights = [(weight, weight.requires_grad, weight.grad) for part in modules for weight in part.parameters()]
    devices = {weight.device for weight, *_ in weights if weight.device.type not in ("cpu", "meta")}

    def restore() -> None:
        for module, mode in modes:
            module.training = mode
        for weight, wanted, gradient in weights:
            weight.requires_grad_(wanted)
            weight.grad = gradient

    with torch.random.fork_rng(devices=devices), _unedited(pipe):
        try:
            yield
        finally:
            insist(restore)


@contextlib.contextmanager
def _unedited(pipe: Any) -> Iterator[None]:
    wiring = Wiring.of(pipe)
    if wiring is None:
        yield
        return
    patches = wiring.patches
    if not patches:
        raise EffaceError("The erasures of this pipeline's Editor are fused into its weights; call unfuse() first")
    try:
        wiring.clear()
        yield
    finally:
        insist(lambda: wiring.set(patches))
