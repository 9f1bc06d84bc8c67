"""The edited model during a fit: hooks while a context is open, on the one U-Net that also answers unedited."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

import efface
from efface.untouched import untouched
from efface_realera.adapter import Adapter

TEXT = "encoder_hidden_states"


@contextmanager
def frozen(model: efface.Model) -> Iterator[None]:
    """The U-Net in evaluation mode and without gradients of its own; as it was afterwards, on any way out."""
    with untouched(model.pipe):
        model.unet.eval().requires_grad_(False)
        yield


@contextmanager
def edited(model: efface.Model, change: efface.LowRank | efface.Dense, adapter: Adapter) -> Iterator[None]:
    """The text c becomes c + E c before any layer reads it, and keys and values gain what the adapter adds.

    No weight is written. The hooks compute what `Patch.map` and `Patch.add` will, and let gradients through.
    """
    matrix = change.dense().to(model.device, torch.float32)
    with ExitStack() as hooks:
        hooks.callback(model.unet.register_forward_pre_hook(_mapping(matrix), with_kwargs=True).remove)
        for name in adapter.down:
            module: nn.Module = model.unet.get_submodule(name.removeprefix("unet."))
            hooks.callback(module.register_forward_hook(_adding(adapter, name)).remove)
        yield


def _mapping(matrix: Tensor) -> Callable[..., Any]:
    def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        text = kwargs[TEXT]
        return args, kwargs | {TEXT: (text.float() + text.float() @ matrix.T).to(text.dtype)}

    return before


def _adding(adapter: Adapter, name: str) -> Callable[..., Tensor]:
    def after(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + adapter.change(name, args[0])

    return after
