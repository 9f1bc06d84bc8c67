"""The fit of many concepts at once: what they share is collected once, and each boundary picture is made once.

First the features of every target, of what it becomes and of the centre are summed, which gives everything but the
thresholds. Then each distinct boundary prompt runs once, and the gates of all concepts are evaluated on it together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from efface_gloce.archive import digest
from efface_gloce.closed_form import Basis, Target, leading, slope, target, threshold
from efface_gloce.collector import Collector
from efface_gloce.gate import Gates
from efface_gloce.layer import Layer
from efface_gloce.moments import Moments, spread
from efface_gloce.words import Words


@dataclass(frozen=True)
class Ranks:
    """How many directions: of what the concept becomes, of the target that go, and of the gate."""

    mapping: int
    target: int
    gate: int


@dataclass(frozen=True)
class Half:
    """One concept at one point before the threshold: the centre (D), the mapping's basis (D, r1) and mean (D)."""

    centre: Tensor
    map_basis: Basis
    map_mean: Tensor
    target: Target

    @property
    def unclear(self) -> tuple[str, ...]:
        return (() if self.map_basis.is_clear else ("mapping",)) + self.target.unclear


Statistics = dict[str, Moments]
"""Moments by point."""


class Fitting:
    """One fit: the collector, the ranks, tau, and with how many seeds each kept prompt is drawn."""

    def __init__(self, collector: Collector, ranks: Ranks, tau: float, kept_seeds: int) -> None:
        self.collector = collector
        self.ranks = ranks
        self.tau = tau
        self.kept_seeds = kept_seeds
        self._device = _precise(collector.model.device)
        self._dtype = torch.promote_types(collector.model.dtype, torch.float32)
        self._bases: dict[tuple[str, tuple[str, ...]], tuple[Basis, Tensor]] = {}

    def halves(self, concepts: Sequence[Words]) -> list[dict[str, Half]]:
        """Everything but the thresholds, for each concept at each point.

        A prompt's statistics are kept while a later concept needs them; those of a concept's own prompts are added up.
        """
        found: list[dict[str, Half]] = []
        known: dict[str, Statistics] = {}
        for index, words in enumerate(concepts):
            later = {prompt for other in concepts[index + 1 :] for prompt in _summed(other)}
            sums = self._sums(words, known, later)
            found.append({place.name: self._half(words, sums, place.name) for place in self.collector.places})
        return found

    def layers(self, concepts: Sequence[Words], halves: Sequence[dict[str, Half]]) -> dict[str, Layer]:
        """The halves with their thresholds."""
        points = [place.name for place in self.collector.places]
        gates = {point: _gates([half[point] for half in halves], self._dtype) for point in points}
        names = [digest(*(tensor for one in half.values() for tensor in _gate_tensors(one))) for half in halves]
        seeds = self.collector.seeds
        near = self.collector.peaks(
            _wanted([words.boundary for words in concepts]), seeds, gates, names, "thresholds from the boundary"
        )
        kept = self.collector.peaks(
            _wanted([words.kept for words in concepts]),
            seeds[: self.kept_seeds],
            gates,
            names,
            "thresholds from what is kept",
        )
        layers = {}
        for point in points:
            own = [
                torch.cat([near[p, n][point] for p in words.boundary] + [kept[p, n][point] for p in words.kept])
                for n, words in enumerate(concepts)
            ]
            layers[point] = self._layer([half[point] for half in halves], [threshold(each, self.tau) for each in own])
        return layers

    def _sums(self, words: Words, known: dict[str, Statistics], later: set[str]) -> dict[tuple[str, ...], Statistics]:
        """The statistics of a concept's three sets of prompts; `known` gains and loses prompts on the way."""
        missing = [prompt for prompt in _summed(words) if prompt not in known]
        collected = self.collector.moments(missing, f"features for {words.target[0]!r}")
        sums: dict[tuple[str, ...], Statistics] = {}
        for prompt in _summed(words):
            moments = known.pop(prompt) if prompt in known else next(collected)
            exact = {point: one.to(self._device, torch.float64) for point, one in moments.items()}
            for prompts in {words.centre, words.mapping, words.target}:
                if prompt in prompts:
                    so_far = sums.get(prompts)
                    sums[prompts] = {p: so_far[p] + exact[p] for p in exact} if so_far else exact
            if prompt in later:
                known[prompt] = moments
        return sums

    def _half(self, words: Words, sums: Mapping[tuple[str, ...], Statistics], point: str) -> Half:
        centre, features = spread(sums[words.centre][point]).mean, spread(sums[words.target][point])
        if (point, words.mapping) not in self._bases:
            mapping = spread(sums[words.mapping][point])
            self._bases[point, words.mapping] = (leading(mapping.covariance, self.ranks.mapping), mapping.mean)
        basis, mean = self._bases[point, words.mapping]
        return Half(centre, basis, mean, target(features, basis.vectors, centre, self.ranks.target, self.ranks.gate))

    def _layer(self, halves: Sequence[Half], thresholds: Sequence[Tensor]) -> Layer:
        found = Layer(
            centre=torch.stack([half.centre for half in halves]),
            gate_basis=torch.stack([half.target.gate_basis for half in halves]),
            map_basis=torch.stack([half.map_basis.vectors for half in halves]),
            map_mean=torch.stack([half.map_mean for half in halves]),
            slope=torch.full((len(halves),), slope(self.tau), dtype=torch.float64),
            target_mean=torch.stack([half.target.mean for half in halves]),
            threshold=torch.stack(list(thresholds)),
            update=torch.stack([half.target.update for half in halves]),
        )
        return found.each(lambda tensor: tensor.to("cpu", self._dtype))


def _summed(words: Words) -> list[str]:
    """The prompts of which sums are needed."""
    return list(dict.fromkeys([*words.centre, *words.mapping, *words.target]))


def _wanted(each: Sequence[Sequence[str]]) -> dict[str, list[int]]:
    """Each distinct prompt, with the numbers of the concepts that it is for."""
    wanted: dict[str, list[int]] = {}
    for concept, prompts in enumerate(each):
        for prompt in dict.fromkeys(prompts):
            wanted.setdefault(prompt, []).append(concept)
    return wanted


def _gates(halves: Sequence[Half], dtype: torch.dtype) -> Gates:
    bases = torch.stack([half.target.gate_basis for half in halves])
    return Gates(bases.to(dtype), torch.stack([half.centre for half in halves]).to(dtype))


def _gate_tensors(half: Half) -> tuple[Tensor, Tensor]:
    return half.target.gate_basis, half.centre


def _precise(device: torch.device) -> torch.device:
    """The device itself, unless it is one without float64."""
    return torch.device("cpu") if device.type == "mps" else device
