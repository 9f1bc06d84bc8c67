"""The fit of many concepts at once: what they share is collected once, and each boundary picture is made once.

First the features of every target, of what it becomes and of the centre are summed, which gives everything but the
thresholds. Then each distinct boundary prompt runs once, and the gates of all concepts are evaluated on it together.
Both are shared out between the processes of the run, in the same pieces however many there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import torch
from torch import Tensor

from efface_gloce.archive import digest
from efface_gloce.closed_form import Basis, Own, Target, leading, own, slope, threshold
from efface_gloce.collector import Collector, Phase
from efface_gloce.gate import Gates
from efface_gloce.layer import Layer
from efface_gloce.moments import Moments, Spread, spread
from efface_gloce.sets import Prompts, Sets, distinct
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


@dataclass(frozen=True)
class Known:
    """What sets of prompts give at each point, on the CPU.

    Of a centre the mean (D), of a mapping its leading directions and its mean, of a target about a centre its own.
    """

    centres: dict[Prompts, dict[str, Tensor]] = field(default_factory=dict)
    mappings: dict[Prompts, dict[str, tuple[Basis, Tensor]]] = field(default_factory=dict)
    targets: dict[tuple[Prompts, Prompts], dict[str, Own]] = field(default_factory=dict)

    def update(self, other: Known) -> None:
        self.centres.update(other.centres)
        self.mappings.update(other.mappings)
        self.targets.update(other.targets)

    def halves(self, waiting: dict[int, Words]) -> dict[int, dict[str, Half]]:
        """Those of the concepts that need wait no longer, by their numbers; targets that no other needs are let go."""
        found = {
            number: self._half(words)
            for number, words in waiting.items()
            if words.mapping in self.mappings and (words.target, words.centre) in self.targets
        }
        for number in found:
            del waiting[number]
        for target in self.targets.keys() - {(words.target, words.centre) for words in waiting.values()}:
            del self.targets[target]
        return found

    def _half(self, words: Words) -> dict[str, Half]:
        centre, mapping = self.centres[words.centre], self.mappings[words.mapping]
        return {
            point: Half(centre[point], *mapping[point], own.becoming(mapping[point][0].vectors))
            for point, own in self.targets[words.target, words.centre].items()
        }


class Fitting:
    """One fit: the collector, the ranks, tau, and with how many seeds each kept prompt is drawn."""

    def __init__(self, collector: Collector, ranks: Ranks, tau: float, kept_seeds: int) -> None:
        self.collector = collector
        self.ranks = ranks
        self.tau = tau
        self.kept_seeds = kept_seeds
        self._device = _precise(collector.model.device)
        self._dtype = torch.promote_types(collector.model.dtype, torch.float32)

    def halves(self, concepts: Sequence[Words]) -> list[dict[str, Half]]:
        """Everything but the thresholds, for each concept at each point.

        As many sets of prompts make a piece of work as go into a batch. The centres come first: the rest needs them.
        """
        collector, sets, known = self.collector, Sets.of(concepts), Known()
        pieces = sets.pieces(max(1, collector.batch // len(collector.seeds)))
        calls = [collector.calls(len(distinct(piece)) * len(collector.seeds)) for piece in pieces]
        phases = [Phase("features", sum(calls), before) for before in accumulate(calls, initial=0)]
        work = list(zip(pieces, phases, strict=False))
        waiting, halves = dict(enumerate(concepts)), dict[int, dict[str, Half]]()
        for stage in (work[:1], work[1:]):
            for found in collector.run.processes.each(stage, lambda item: self._read(sets, known, *item)):
                known.update(found)
                halves |= known.halves(waiting)
        return [halves[number] for number in range(len(concepts))]

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

    def _read(self, sets: Sets, known: Known, piece: Sequence[Prompts], phase: Phase) -> Known:
        """What the sets of a piece give; a set waits until all centres are known, here or from before."""
        found, waiting = Known(), dict[Prompts, dict[str, Spread]]()
        for prompts, spreads in self._spreads(piece, phase):
            waiting[prompts] = spreads
            if prompts in sets.centres:
                found.centres[prompts] = {point: one.mean.cpu() for point, one in spreads.items()}
            centres = known.centres | found.centres
            while waiting and len(centres) == len(sets.centres):
                self._reduce(sets, centres, *waiting.popitem(), found)
        return found

    def _reduce(
        self,
        sets: Sets,
        centres: Mapping[Prompts, Mapping[str, Tensor]],
        prompts: Prompts,
        spreads: Mapping[str, Spread],
        found: Known,
    ) -> None:
        """Put into `found` what a set is wanted for."""
        ranks = self.ranks
        if prompts in sets.mappings:
            found.mappings[prompts] = {
                point: (leading(one.covariance, ranks.mapping).to("cpu"), one.mean.cpu())
                for point, one in spreads.items()
            }
        for centre in sets.targets.get(prompts, ()):
            found.targets[prompts, centre] = {
                point: own(one, centres[centre][point].to(one.mean), ranks.target, ranks.gate).to("cpu")
                for point, one in spreads.items()
            }

    def _spreads(self, piece: Sequence[Prompts], phase: Phase) -> Iterator[tuple[Prompts, dict[str, Spread]]]:
        """Each set with its means and covariances. A prompt's moments are kept while a later set needs them."""
        collected = self.collector.moments(distinct(piece), phase)
        kept: dict[str, Statistics] = {}
        for index, prompts in enumerate(piece):
            later = set(distinct(piece[index + 1 :]))
            sums: Statistics = {}
            for prompt in dict.fromkeys(prompts):
                moments = kept.pop(prompt) if prompt in kept else next(collected)
                if prompt in later:
                    kept[prompt] = moments
                for point, one in moments.items():
                    exact = one.to(self._device, torch.float64)
                    sums[point] = sums[point] + exact if point in sums else exact
            yield prompts, {place.name: spread(sums.pop(place.name)) for place in self.collector.places}

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
