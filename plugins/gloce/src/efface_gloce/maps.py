"""Where the gates of a picture opened: maps averaged over layers and steps, one for each block of the U-Net."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

import efface
from efface_gloce.gated import Gate, GatedLayer, Listener
from efface_gloce.gloce import GLoCE, attach
from efface_gloce.moments import grid_size

BLOCK = re.compile(r"unet\.(?:(down|up)_blocks\.(\d+)|mid_block)\.")


@dataclass(frozen=True)
class GateMap:
    """How far gates were open in one block (h, w), 0 to 1, as the mean over its layers and the active steps.

    `highest` is the largest p - c that any token had there: below 0 nothing opened. `lowest_threshold` is the lowest c
    of the layers and concepts: from 1 on no gate can open, since p is at most 1. `winners` says for each of the
    `concepts` that acted in which share of the open tokens it did. `unprompted` is the mean of the picture's rows that
    carry no prompt, which guidance adds: gates open there too, and change the picture.
    """

    block: str
    open: Tensor
    highest: float
    lowest_threshold: float
    concepts: tuple[str, ...]
    winners: dict[str, float]
    unprompted: float = 0.0

    @property
    def share(self) -> float:
        """The mean over the block's tokens."""
        return float(self.open.mean())

    def to_json(self) -> dict[str, Any]:
        size = list(self.open.shape)
        return {
            "block": self.block,
            "grid": size,
            "open": self.share,
            "open without the prompt": self.unprompted,
            "highest p - c": self.highest,
            "lowest threshold": self.lowest_threshold,
            "winners": self.winners,
        }


@dataclass
class Sums:
    """What was heard of one block, for n pictures, and how often.

    `open` tokens (n, T), `highest` margins (n,) and `winners` are of the prompts' rows, `unprompted` (n,) of others.
    """

    open: Tensor
    unprompted: Tensor
    highest: Tensor
    size: tuple[int, int]
    winners: list[Counter[str]]
    lowest_threshold: float
    concepts: tuple[str, ...]
    heard: int = 0


@dataclass
class GateRecorder:
    """Hears the gates of one batch of `count` pictures, of the rows that carry the prompts: the last ones."""

    count: int
    blocks: dict[str, Sums] = field(default_factory=dict)

    def __call__(self, layer: GatedLayer, gate: Gate, call: efface.Call) -> None:
        opened, margin = gate.open[-self.count :].float().cpu(), gate.margin[-self.count :].float().cpu()
        if not gate.active[-self.count :].any():
            return
        sums = self._sums(layer, opened, call)
        sums.open += opened
        if len(gate.open) > self.count:
            sums.unprompted += gate.open[: -self.count].float().mean(1).cpu().view(-1, self.count).mean(0)
        sums.lowest_threshold = min(sums.lowest_threshold, layer.lowest_threshold)
        sums.highest = torch.maximum(sums.highest, margin.amax(1))
        sums.heard += 1
        for picture, (row, winner) in enumerate(zip(opened, gate.winner[-self.count :].cpu(), strict=True)):
            numbers, counts = winner[row > 0.5].unique(return_counts=True)
            for number, many in zip(numbers.tolist(), counts.tolist(), strict=True):
                sums.winners[picture][layer.concepts[number]] += many

    def maps(self) -> list[list[GateMap]]:
        """For each picture a map of every block, in the order of the U-Net."""
        return [[_map(block, sums, picture) for block, sums in self.blocks.items()] for picture in range(self.count)]

    def _sums(self, layer: GatedLayer, opened: Tensor, call: efface.Call) -> Sums:
        block = block_of(layer.name)
        if block not in self.blocks:
            high, wide = call.sample.shape[-2:]
            size = grid_size((high, wide), opened.shape[1])
            lowest = torch.full((self.count,), -torch.inf)
            winners: list[Counter[str]] = [Counter() for _ in range(self.count)]
            self.blocks[block] = Sums(
                torch.zeros_like(opened),
                torch.zeros(self.count),
                lowest,
                size,
                winners,
                layer.lowest_threshold,
                layer.concepts,
            )
        return self.blocks[block]


def block_of(point: str) -> str:
    """`down 0`, `mid` or `up 2` for a point in that block; any other point is a block of its own."""
    match = BLOCK.match(point)
    if not match:
        return point
    return f"{match[1]} {match[2]}" if match[1] else "mid"


def listening(listener: Listener) -> efface.Registry:
    """A registry in which GLoCE tells a listener about every gate."""

    class Heard(GLoCE):
        """GLoCE with a listener."""

        def apply(self, patch: efface.Patch, fits: Sequence[efface.Fitted]) -> None:
            attach(patch, fits, self.tie_break, listener)

    heard = dataclass(frozen=True, eq=False)(Heard)
    return efface.Registry([SimpleNamespace(__name__="gloce", efface_methods=efface.hookimpl(lambda: [heard]))])


def _map(block: str, sums: Sums, picture: int) -> GateMap:
    total = sums.winners[picture].total()
    return GateMap(
        block=block,
        open=(sums.open[picture] / sums.heard).view(sums.size),
        highest=float(sums.highest[picture]),
        lowest_threshold=sums.lowest_threshold,
        concepts=sums.concepts,
        winners={concept: many / total for concept, many in sums.winners[picture].most_common()},
        unprompted=float(sums.unprompted[picture]) / sums.heard,
    )
