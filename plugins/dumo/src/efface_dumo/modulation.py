"""Time-layer modulation (TLMO): how strongly each output of the branch acts, by timestep and layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

import efface

Kind = Literal["time_layer", "time", "layer", "linear", "blend", "none"]
TABLES = ("time_layer", "time", "layer")
BLEND_START = -2.0


class Modulation(nn.Module):
    """The weight of every layer for every sample, (B, L).

    `time_layer`, `time` and `layer` are tables that start at one: (bins, groups), (bins, 1), (1, groups). `linear`
    is a linear function of the time embedding with weight 0 and bias 1; `blend` the sigmoid of one with bias -2, the
    share of the branch's features in a mixture with the U-Net's. `none` is one everywhere. `groups` names a column
    for every layer.
    """

    def __init__(self, kind: Kind, bins: int, groups: Sequence[int], time_width: int) -> None:
        super().__init__()
        self.kind: Kind = kind
        self.bins = bins
        self.groups = list(groups)
        columns = max(self.groups) + 1
        if kind in TABLES:
            rows = 1 if kind == "layer" else bins
            self.table = nn.Parameter(torch.ones(rows, 1 if kind == "time" else columns))
        elif kind != "none":
            self.weight = nn.Parameter(torch.zeros(columns, time_width))
            self.bias = nn.Parameter(torch.full((columns,), BLEND_START if kind == "blend" else 1.0))

    def forward(self, timestep: Tensor, train_timesteps: int, time: Tensor) -> Tensor:
        """Lambda for timesteps (B,) and time embeddings (B, E)."""
        if self.kind == "none":
            return time.new_ones(len(timestep), len(self.groups))
        if self.kind in TABLES:
            return self.full_table()[self.bin_of(timestep, train_timesteps)]
        value = nn.functional.linear(time, self.weight.to(time), self.bias.to(time))
        return (value.sigmoid() if self.kind == "blend" else value)[:, self.groups]

    def bin_of(self, timestep: Tensor, train_timesteps: int) -> Tensor:
        """The row of every timestep, (B,)."""
        return bin_of(timestep, train_timesteps, self.bins)

    def full_table(self) -> Tensor:
        """The table with a row for every bin and a column for every layer, (bins, L)."""
        return self.table.expand(self.bins, max(self.groups) + 1)[:, self.groups]

    def silent_bins(self, layers: int) -> list[bool]:
        """For each bin whether its row is zero in the first `layers` columns; empty if there is no such bin."""
        if self.kind not in TABLES:
            return []
        silent: list[bool] = (self.full_table()[:, :layers] == 0).all(1).tolist()
        return silent if any(silent) else []


def bin_of(timestep: Tensor, train_timesteps: int, bins: int) -> Tensor:
    """floor(t bins / T) for timesteps (B,) of any dtype, kept within 0 .. bins - 1."""
    if timestep.is_floating_point():
        timestep = timestep.to(torch.promote_types(timestep.dtype, torch.float32))
    found = torch.div(timestep * bins, train_timesteps, rounding_mode="floor")
    return found.long().clamp(0, bins - 1)


def groups_of(layer_groups: Sequence[int], layers: int) -> list[int]:
    """The column of every layer: the given ones, or one for each; BadSetting where they do not fit."""
    if not layer_groups:
        return list(range(layers))
    if len(layer_groups) != layers or sorted(set(layer_groups)) != list(range(max(layer_groups) + 1)):
        raise efface.BadSetting(
            f"layer_groups must name a group 0, 1, ... for each of this U-Net's {layers} layers (its skip connections "
            f"and the mid output) without gaps, not {tuple(layer_groups)}"
        )
    return list(layer_groups)


def joined(feature: Tensor, output: Tensor, weight: Tensor, kind: Kind, strength: Tensor | None = None) -> Tensor:
    """The decoder's input at one layer, s + m lambda z; for `blend` s + m g (h - s), which is (1 - g) s + g h at m = 1.

    `feature` and `output` (B, C, h, w); `weight` (B,) is lambda or g, `strength` (B,) the gate's m.
    """
    change = output - feature if kind == "blend" else output
    for factor in (weight, strength):
        if factor is not None:
            change = change * factor[:, None, None, None].to(change.dtype)
    return feature + change
