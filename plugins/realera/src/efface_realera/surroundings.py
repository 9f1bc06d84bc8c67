"""What surrounds a concept in the objective of stage 1: its neighbours, and the points beyond them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor

import efface
from efface_realera.closed_form import Share, held, wished
from efface_realera.expectation import Expected
from efface_realera.miner import Miner, NoiseMiner
from efface_realera.moments import Moments, isotropic_moments
from efface_realera.prompts import Prompts
from efface_realera.rows import columns, joined, paired, positions
from efface_realera.window import Window

if TYPE_CHECKING:
    from efface_realera.realera import RealEra


@dataclass(frozen=True, eq=False)
class Surroundings:
    """A share of the objective, and the variances of the noise in it, near and beyond, weighted, one for each block."""

    share: Share
    near: Tensor
    beyond: Tensor


def sampled(settings: RealEra, prompts: Prompts, miner: Miner, concept: int, run: efface.Run) -> Surroundings:
    """Points that the miner draws for one concept."""
    rows = prompts.rows(concept)
    near, owners = drawn(miner.near, rows, settings.near, run.generator(stream=f"realera near {concept}"))
    beyond, sources = drawn(miner.beyond, rows, settings.beyond, run.generator(stream=f"realera beyond {concept}"))
    share = Share()
    if owners:
        pairs = paired(near, prompts.anchors.rows(owners), settings.tokens)
        share += wished(pairs, settings.near_weight)
    if sources:
        share += held(columns(beyond, settings.tokens), settings.beyond_weight)
    return Surroundings(
        share,
        settings.near_weight * across(miner, near, owners),
        settings.beyond_weight * across(miner, beyond, sources),
    )


def expected(settings: RealEra, prompts: Prompts, miner: NoiseMiner, concept: int) -> Surroundings:
    """The same for infinitely many isotropic points."""
    rows, share = prompts.rows(concept), Share()
    near_noise, beyond_noise = [], []
    near_weight = settings.near_weight / len(rows) if settings.near else 0.0
    beyond_weight = settings.beyond_weight / len(rows) if settings.beyond else 0.0
    for row in rows:
        near, beyond = (_expected(settings, miner, row, window) for window in (miner.bounds.near, miner.bounds.beyond))
        target = prompts.targets.rows([row])
        if near_weight:
            share += near.wishes(paired(target, prompts.anchors.rows([row]), settings.tokens), near_weight)
        if beyond_weight:
            share += beyond.still(columns(target, settings.tokens), beyond_weight)
        near_noise.append(near_weight * near.across)
        beyond_noise.append(beyond_weight * beyond.across)
    return Surroundings(share, torch.stack(near_noise).sum(0), torch.stack(beyond_noise).sum(0))


def drawn(
    draw: Callable[[int, int, Generator], efface.Encoded], rows: Sequence[int], count: int, generator: Generator
) -> tuple[efface.Encoded, list[int]]:
    """About `count` points, equally many for each of the rows, and the row of each."""
    each = [draw(row, -(-count // len(rows)), generator) for row in rows]
    owners = [row for row, points in zip(rows, each, strict=True) for _ in points.prompts]
    return joined(each), owners


def across(miner: Miner, points: efface.Encoded, owners: Sequence[int]) -> Tensor:
    """The mean square of what noise adds across the embedding, per dimension, (blocks,); real phrases have none."""
    if not isinstance(miner, NoiseMiner):
        return torch.zeros(1, dtype=torch.float64)
    total = torch.zeros(len(miner.blocks), dtype=torch.float64)
    for index, row in enumerate(owners):
        e, places = miner.embedding(row), positions(miner.prompts.targets, row, miner.tokens)
        x = points.hidden[index, places].to("cpu", torch.float64)
        for number, block in enumerate(miner.blocks):
            total[number] += _across(e[:, block].flatten(), x[:, block].flatten()) / len(owners)
    return total


def _across(e: Tensor, x: Tensor) -> float:
    rest = x - (x @ e / e.square().sum()) * e
    return float(rest.square().sum() / (len(e) - 1))


def _expected(settings: RealEra, miner: NoiseMiner, row: int, window: Window) -> Expected:
    e = miner.embedding(row)
    parts = [e[:, block] for block in miner.blocks]
    norms = tuple(float(part.norm()) for part in parts)
    moments: list[Moments] = [
        isotropic_moments(norm, part.numel(), window, settings.noise) for norm, part in zip(norms, parts, strict=True)
    ]
    return Expected(tuple(moments), norms, miner.blocks)
