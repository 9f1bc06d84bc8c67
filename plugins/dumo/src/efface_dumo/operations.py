"""How many floating-point operations a pass of the branch takes, from shapes alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from efface_dumo.branch import Branch

CROSS, OWN = "attn2", "attn1"


def branch_flops(branch: Branch, positions: Mapping[str, int]) -> float:
    """Operations of one pass for one picture: products of matrices and convolutions.

    `positions` says at how many places each layer of the U-Net computes; the branch's encoder has the same layers.
    """
    encoder: dict[str, Any] = dict(branch.encoder.named_modules())
    joints: list[Any] = list(branch.joints)
    layers = {path: part for path, part in encoder.items() if isinstance(part, nn.Linear | nn.Conv2d)}
    total = sum(2.0 * part.weight.numel() * _at(positions, path) for path, part in layers.items())
    for path, part in encoder.items():
        if path.endswith((CROSS, OWN)):
            queries, keys = (_at(positions, f"{path}.{end}") for end in ("to_q", "to_k"))
            total += 4.0 * queries * keys * int(part.to_q.out_features)
    for joint, path in zip(joints, _makers(branch.encoder) if joints else (), strict=True):
        total += 2.0 * joint.weight.numel() * _at(positions, path)
    return total


def _makers(encoder: Any) -> Iterator[str]:
    """The convolution whose output has the size of each skip connection, in encoder order, and of the mid output."""
    yield "conv_in"
    for place, block in enumerate(encoder.down_blocks):
        for number in range(len(block.resnets)):
            yield f"down_blocks.{place}.resnets.{number}.conv2"
        if block.downsamplers:
            yield f"down_blocks.{place}.downsamplers.0.conv"
    yield "mid_block.resnets.0.conv2"


def _at(positions: Mapping[str, int], path: str) -> int:
    """A layer's places, also where an adapter is around it in the pipeline's U-Net."""
    return positions[path] if path in positions else positions[f"{path}.base_layer"]
