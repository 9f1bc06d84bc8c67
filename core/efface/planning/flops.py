"""How many floating-point operations a U-Net takes, and a linear change in it, from shapes alone.

An estimate: products of matrices and convolutions at the size the model was made for; a multiplication and an addition
are two operations. Nothing is run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from efface_hooks import Delta, LowRank
from efface_hooks.point import PROJECTIONS, text_readers

Size = tuple[int, int]


def unet_flops(unet: Any, tokens: int) -> float:
    """Operations of one denoising call for one picture and a text of so many tokens."""
    at = positions(unet, tokens)
    layers = sum(2.0 * int(unet.get_submodule(path).weight.numel()) * number for path, number in at.items())
    return layers + sum(_attention(path, at, module) for path, module in _attentions(unet))


def positions(unet: Any, tokens: int) -> dict[str, int]:
    """At how many places each linear layer and convolution computes an output: pixels, text tokens, or 1."""
    sizes, readers = dict(_sizes(unet)), set(text_readers(unet))
    layers = (path for path, module in unet.named_modules() if isinstance(module, nn.Linear | nn.Conv2d))
    return {path: tokens if path in readers else _positions(path, sizes) for path in layers}


def delta_flops(delta: Delta, number: int) -> float:
    """Operations of a change at so many places."""
    factors = (delta.up, delta.down) if isinstance(delta, LowRank) else (delta.weight,)
    return 2.0 * number * sum(factor.numel() for factor in factors)


def _attentions(unet: nn.Module) -> Iterator[tuple[str, Any]]:
    for path, module in unet.named_modules():
        if all(hasattr(module, tail.partition(".")[0]) for tail in PROJECTIONS.values()):
            yield path, module


def _attention(path: str, at: Mapping[str, int], module: Any) -> float:
    """Scores and their application: two products of queries with as many keys, or values, for every head."""
    queries, keys = (_at(at, f"{path}.{PROJECTIONS[role]}") for role in ("q", "k"))
    return 2.0 * 2.0 * queries * keys * int(module.to_q.out_features)


def _at(at: Mapping[str, int], path: str) -> int:
    """A layer's positions, also where an adapter is around it."""
    return at[path] if path in at else at[f"{path}.base_layer"]


def _positions(path: str, sizes: Mapping[str, Size]) -> int:
    """Of the longest beginning of a path that has a size; layers of the timestep compute once."""
    if "time_emb" in path or "add_embedding" in path:
        return 1
    within = max((prefix for prefix in sizes if path.startswith(prefix)), key=len)
    high, wide = sizes[within]
    return high * wide


def _sizes(unet: Any) -> Iterator[tuple[str, Size]]:
    """Height and width of what the modules below a path put out: halved by downsamplers, doubled back by upsamplers."""
    given = unet.config.sample_size
    size: Size = (int(given[0]), int(given[1])) if isinstance(given, list | tuple) else (int(given), int(given))
    levels = [size]
    yield "", size
    for number, block in enumerate(unet.down_blocks):
        yield f"down_blocks.{number}.", size
        if getattr(block, "downsamplers", None) is not None:
            size = (-(-size[0] // 2), -(-size[1] // 2))
            levels.append(size)
            yield f"down_blocks.{number}.downsamplers.", size
    yield "mid_block.", size
    for number, block in enumerate(unet.up_blocks):
        yield f"up_blocks.{number}.", levels[-1]
        if getattr(block, "upsamplers", None) is not None:
            levels.pop()
            yield f"up_blocks.{number}.upsamplers.", levels[-1]
