"""Miners: where the neighbours of a concept come from, and the beyond-concept points that hold the rest in place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor

import efface
from efface_realera.bounds import Bounds
from efface_realera.prompts import Prompts
from efface_realera.rows import Tokens, moved, positions
from efface_realera.window import Window

Draw = Callable[[Tensor, int, Window, Generator, Tensor | None], Tensor]
"""Points around e (d,): draw(e, count, window, generator, spread) -> (count, d), in float64."""


class Miner(Protocol):
    """Finds prompts like one of the erased ones; all randomness comes from the generator."""

    def near(self, row: int, count: int, generator: Generator) -> efface.Encoded:
        """At most `count` neighbours of one erased prompt: prompts or embeddings that are erased with it."""
        ...

    def beyond(self, row: int, count: int, generator: Generator) -> efface.Encoded:
        """At most `count` points a bit farther away, whose meaning stays."""
        ...


@dataclass(frozen=True, eq=False)
class NoiseMiner:
    """Perturbs the embeddings of the erased prompts: each encoder's part, and the pooled one, in a window of its own.

    Reconstruction: only the tokens that stand for the phrase are perturbed, so that the start token stays what it is
    in every prompt. `spread` holds centred embeddings of real phrases, (s, p, D) and (s, P), for draws that need them.
    """

    prompts: Prompts
    tokens: Tokens
    bounds: Bounds
    draw: Draw
    blocks: tuple[slice, ...]
    spread: tuple[Tensor, Tensor | None] | None = None

    def near(self, row: int, count: int, generator: Generator) -> efface.Encoded:
        return self._perturbed(row, count, self.bounds.near, generator)

    def beyond(self, row: int, count: int, generator: Generator) -> efface.Encoded:
        return self._perturbed(row, count, self.bounds.beyond, generator)

    def embedding(self, row: int) -> Tensor:
        """What is perturbed of one prompt, (p, D) in float64."""
        hidden = self.prompts.targets.hidden[row, positions(self.prompts.targets, row, self.tokens)]
        return hidden.to("cpu", torch.float64)

    def _perturbed(self, row: int, count: int, window: Window, generator: Generator) -> efface.Encoded:
        targets, places = self.prompts.targets, positions(self.prompts.targets, row, self.tokens)
        hidden = targets.hidden[row].to("cpu", torch.float64).repeat(count, 1, 1)
        for block in self.blocks:
            e = self.embedding(row)[:, block]
            points = self.draw(e.flatten(), count, window, generator, self._spread(len(places), block))
            hidden[:, places, block] = points.view(count, *e.shape)
        pooled = None
        if targets.pooled is not None:
            e = targets.pooled[row].to("cpu", torch.float64)
            pooled = self.draw(e, count, window, generator, None if self.spread is None else self.spread[1])
        return moved(targets.rows([row] * count), hidden, pooled)

    def _spread(self, length: int, block: slice) -> Tensor | None:
        """The bank's spread over the tokens that are perturbed; none over tokens that no phrase of the bank has."""
        if self.spread is None:
            return None
        known = self.spread[0][:, :length, block]
        return torch.nn.functional.pad(known, (0, 0, 0, length - known.shape[1])).flatten(1)


@dataclass(frozen=True, eq=False)
class SnapMiner:
    """Takes real phrases from a bank: for each concept its neighbours and what lies beyond, in all templates."""

    prompts: Prompts
    found: tuple[efface.Encoded | None, ...]
    farther: tuple[efface.Encoded | None, ...]

    def near(self, row: int, count: int, generator: Generator) -> efface.Encoded:
        return self._some(self.found[self.prompts.concept[row]], row, count, generator)

    def beyond(self, row: int, count: int, generator: Generator) -> efface.Encoded:
        return self._some(self.farther[self.prompts.concept[row]], row, count, generator)

    def _some(self, pool: efface.Encoded | None, row: int, count: int, generator: Generator) -> efface.Encoded:
        """Different phrases, in the template of the row."""
        if pool is None:
            return self.prompts.targets.rows([])
        templates = 1 + max(self.prompts.template)
        phrases = torch.randperm(len(pool.prompts) // templates, generator=generator)[:count]
        return pool.rows([int(phrase) * templates + self.prompts.template[row] for phrase in phrases])
