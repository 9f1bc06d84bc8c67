"""From a request to a miner: the bank of phrases, their ranking, and how points are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor

import efface
from efface_realera import bank, perturbation
from efface_realera.bounds import Bounds
from efface_realera.miner import Draw, Miner, NoiseMiner, SnapMiner
from efface_realera.prompts import Prompts
from efface_realera.ranking import Eye, Ranked, features, ranked, shortlist
from efface_realera.rows import joined
from efface_realera.window import Window

if TYPE_CHECKING:
    from efface_realera.realera import RealEra

ENCODERS = ("text_encoder", "text_encoder_2")
CHUNK = 64


@dataclass(frozen=True, eq=False)
class Mined:
    """A miner, how the bank ranked for each concept, and the rows of the bank that are no neighbours of any."""

    miner: Miner
    ranks: tuple[Ranked, ...]
    others: efface.Encoded | None


def mine(settings: RealEra, model: efface.Model, request: efface.Request, prompts: Prompts, run: efface.Run) -> Mined:
    """Everything that is mined before the closed form; a step of stage 2 draws anew from the miner."""
    blocks = text_blocks(model, prompts.targets.hidden.shape[2])
    if settings.sampler == "isotropic" and not settings.bank_weight:
        return Mined(NoiseMiner(prompts, settings.tokens, settings.bounds, isotropic(settings.noise), blocks), (), None)
    phrases = bank.phrases(model.pipe.tokenizer, request, settings.bank, settings.exclude, settings.bank_size)
    if not phrases:
        raise efface.EffaceError("The bank is empty: give phrases with bank=..., or take away from exclude")
    encoded = _encoded(model, phrases, request.templates[0], run)
    cosines = _cosines(settings, model, prompts, encoded, blocks, run)
    bounds = settings.bounds if settings.sampler == "snap" else Bounds.of("snap")
    others = [row for row in range(len(phrases)) if max(float(each[row]) for each in cosines) < bounds.below]
    held = encoded.rows(others) if others else None
    if settings.sampler != "snap":
        return Mined(_noisy(settings, prompts, encoded, blocks), (), held)
    ranks = _ranks(settings, phrases, cosines)
    return Mined(_snapping(model, request, prompts, ranks), ranks, held)


def text_blocks(model: efface.Model, width: int) -> tuple[slice, ...]:
    """The part of each text encoder in the embedding: SDXL puts two side by side."""
    widths = [getattr(getattr(model.pipe, name, None), "config", None) for name in ENCODERS]
    sizes = [int(config.hidden_size) for config in widths if config is not None]
    if sum(sizes) != width:
        return (slice(0, width),)
    ends = [sum(sizes[: index + 1]) for index in range(len(sizes))]
    return tuple(slice(end - size, end) for size, end in zip(sizes, ends, strict=True))


def isotropic(noise: float | None) -> Draw:
    def draw(e: Tensor, count: int, window: Window, generator: Generator, _spread: Tensor | None) -> Tensor:
        return perturbation.isotropic(e, count, window, generator, noise)

    return draw


def correlated(e: Tensor, count: int, window: Window, generator: Generator, spread: Tensor | None) -> Tensor:
    if spread is None:
        raise ValueError("correlated noise needs the spread of a bank")
    return perturbation.correlated(e, count, window, generator, spread)


def _noisy(settings: RealEra, prompts: Prompts, encoded: efface.Encoded, blocks: tuple[slice, ...]) -> NoiseMiner:
    if settings.sampler == "isotropic":
        return NoiseMiner(prompts, settings.tokens, settings.bounds, isotropic(settings.noise), blocks)
    pooled = None if encoded.pooled is None else _centred(encoded.pooled)
    spread = (_centred(features(encoded, settings.tokens)), pooled)
    return NoiseMiner(prompts, settings.tokens, settings.bounds, correlated, blocks, spread)


def _centred(rows: Tensor) -> Tensor:
    exact = rows.to("cpu", torch.float64)
    centred: Tensor = (exact - exact.mean(0)) / len(rows) ** 0.5
    return centred


def _encoded(model: efface.Model, phrases: Sequence[str], template: str, run: efface.Run) -> efface.Encoded:
    parts = []
    for first in range(0, len(phrases), CHUNK):
        run.progress(first, len(phrases), "encoding the bank")
        parts.append(model.encode_phrases(phrases[first : first + CHUNK], [template]))
    run.progress(len(phrases), len(phrases), "encoding the bank")
    return joined(parts)


def _cosines(
    settings: RealEra,
    model: efface.Model,
    prompts: Prompts,
    encoded: efface.Encoded,
    blocks: Sequence[slice],
    run: efface.Run,
) -> list[Tensor]:
    """How like each concept each phrase of the bank is in the first template, (n,); -inf where not shortlisted."""
    eye = Eye.of(model, run.generator(stream="realera eye"), settings.batch_size)
    found = []
    for concept in sorted(set(prompts.concept)):
        own = prompts.targets.rows(prompts.rows(concept, template=0))
        rows = shortlist(own, encoded, settings.tokens, blocks, settings.shortlist)
        cosines = torch.full((len(encoded.prompts),), -torch.inf)
        cosines[rows] = eye.likeness(own, encoded.rows(rows))
        found.append(cosines)
    return found


def _ranks(settings: RealEra, phrases: Sequence[str], cosines: Sequence[Tensor]) -> tuple[Ranked, ...]:
    """The ranking for each concept; a neighbour of one is beyond none."""
    ranks = [ranked(phrases, each, settings.bounds, settings.near, settings.beyond) for each in cosines]
    near = {phrase for rank in ranks for phrase, _ in rank.near}
    return tuple(Ranked(rank.near, tuple(entry for entry in rank.beyond if entry[0] not in near)) for rank in ranks)


def _snapping(model: efface.Model, request: efface.Request, prompts: Prompts, ranks: Sequence[Ranked]) -> SnapMiner:
    def pool(entries: Sequence[tuple[str, float]]) -> efface.Encoded | None:
        return model.encode_phrases([phrase for phrase, _ in entries], request.templates) if entries else None

    return SnapMiner(prompts, tuple(pool(rank.near) for rank in ranks), tuple(pool(rank.beyond) for rank in ranks))
