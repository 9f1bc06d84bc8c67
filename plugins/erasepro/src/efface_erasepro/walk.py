"""The one pass through a text encoder in which each module of a chain is edited just before it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

import efface

REMEDY = "Fit before compiling the text encoder, or leave this point out of the chain."
Solve = Callable[[str, Tensor], efface.LowRank | efface.Dense]


@contextmanager
def walking(modules: Mapping[str, nn.Module], rows: int, edited: int, solve: Solve) -> Iterator[None]:
    """While open, each named module is given x + E x in rows 0 .. edited - 1 of a batch, with E = solve(name, x).

    x (rows, T, d) or (rows, d) is what the modules before it, edited as they are, made of the batch: the targets'
    features as they have become and the anchors' as they were, in one pass. Raises EditLost when a module was not run,
    or not with the whole batch at once.

    Source: layers visited from shallow to deep, anchors from the base model: the paper's formula as quoted in a
    secondary source. That targets are taken from the model as edited so far is inferred from "progressive" in its
    abstract.
    """
    reached: set[str] = set()

    def before(name: str) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
        def edit(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            if len(args[0]) != rows:
                raise efface.EditLost(name, f"{len(args[0])} of {rows} prompts reached it together", REMEDY)
            reached.add(name)
            return moved(args[0], edited, solve(name, args[0])), *args[1:]

        return edit

    handles: list[Any] = []
    try:
        for name, module in modules.items():
            handles.append(module.register_forward_pre_hook(before(name)))
        yield
        for name in modules:
            if name not in reached:
                raise efface.EditLost(name, "the text encoder did not run it", REMEDY)
    finally:
        for handle in handles:
            handle.remove()


def moved(x: Tensor, edited: int, delta: efface.LowRank | efface.Dense) -> Tensor:
    """x + E x in the first rows, in float32 or wider and cast back, as a map does it."""
    rows = x[:edited].to(torch.promote_types(x.dtype, torch.float32))
    factors = (delta.down, delta.up) if isinstance(delta, efface.LowRank) else (delta.weight,)
    change = rows
    for factor in factors:
        change = change @ factor.to(rows).T
    return torch.cat([(rows + change).to(x.dtype), x[edited:]])
