"""All prompts of a fit in one batch, and which of their tokens are targets, anchors, invariants and kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

import efface
from efface.alignment import Tokens, places
from efface_erasepro.reading import tokenized

Positions = Literal["tail", "span", "subject"]
PARTS: Mapping[Positions, tuple[Tokens, ...]] = MappingProxyType(
    {"tail": ("span", "tail"), "span": ("span",), "subject": ("subject",)}
)
Cell = tuple[int, int, float]
KEPT_PADS = 8  # padding tokens at most that stand for all of a kept prompt's: only their mean square counts


@dataclass(frozen=True)
class Cells:
    """Tokens of a batch: prompt (row) and position of each, (n,), and how many tokens each stands for."""

    rows: Tensor
    positions: Tensor
    weights: Tensor

    @classmethod
    def of(cls, cells: Iterable[Cell]) -> Cells:
        listed = list(cells)
        rows, positions, weights = zip(*listed, strict=True) if listed else ((), (), ())
        return cls(
            torch.tensor(rows, dtype=torch.int64),
            torch.tensor(positions, dtype=torch.int64),
            torch.tensor(weights, dtype=torch.float64),
        )

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def prompts(self) -> list[int]:
        """The prompts that have any of the tokens, each once."""
        return sorted(set(self.rows.tolist()))

    def features(self, x: Tensor) -> Tensor:
        """Columns (d, n) of x (B, T, d), or of x (B, d) where a prompt has one vector; float64 on the CPU."""
        found = x[self.rows] if x.ndim == 2 else x[self.rows, self.positions]
        return found.detach().to("cpu", torch.float64).T

    def part(self, chosen: Tensor) -> Cells:
        return Cells(self.rows[chosen], self.positions[chosen], self.weights[chosen])


@dataclass(frozen=True)
class Batch:
    """The prompts of a fit, `edited` of them: targets, anchors and what stays; then the same again.

    Rows 0 .. edited - 1 pass through the edited modules, the others through the base's. `targets` become `anchors`,
    one to one, called by `labels`, target j being one of the column `columns[j]` (n,), which are called by
    `column_labels`. `kept` are tokens of anchors and kept prompts, `still` those that stay exactly, called by
    `still_labels`.
    """

    prompts: tuple[str, ...]
    edited: int
    targets: Cells
    anchors: Cells
    labels: tuple[str, ...]
    columns: Tensor
    column_labels: tuple[str, ...]
    kept: Cells
    still: Cells
    still_labels: tuple[str, ...]

    def base(self, cells: Cells) -> Cells:
        """The same tokens where they pass through the base's modules."""
        return replace(cells, rows=cells.rows + self.edited)

    @property
    def once(self) -> Batch:
        """The same prompts each but once, for a fit that edits nothing on the way: `base` is then the batch itself."""
        anchors = replace(self.anchors, rows=self.anchors.rows - self.edited)
        return replace(self, prompts=self.prompts[: self.edited], anchors=anchors, edited=0)

    @property
    def pooled(self) -> Batch:
        """The same prompts where each has one vector only, and is a column of its own."""
        firsts = torch.tensor([int((self.targets.rows == row).nonzero()[0]) for row in self.targets.prompts])
        prompts = tuple(self.prompts[row] for row in self.targets.prompts)
        return replace(
            self,
            targets=_whole(self.targets.rows[firsts]),
            anchors=_whole(self.anchors.rows[firsts]),
            labels=prompts,
            columns=torch.arange(len(prompts)),
            column_labels=prompts,
            kept=_whole(torch.tensor(self.kept.prompts, dtype=torch.int64)),
            still=_whole(torch.tensor(self.still.prompts, dtype=torch.int64)),
            still_labels=tuple(repr(self.prompts[row]) for row in self.still.prompts),
        )


@dataclass(frozen=True)
class Choice:
    """Which tokens count: those of a phrase, how many of the padding, how many of "" stay, and prompts that stay.

    `averaged`: tokens of one kind count together, over all templates. Tokens of random prompts weigh `prior_weight`.
    """

    positions: Positions
    pads: int
    invariants: int
    hold: tuple[str, ...]
    averaged: bool
    prior_weight: float


def batch(
    model: efface.Model, request: efface.Request, templates: Sequence[str], choice: Choice, prior: Sequence[str] = ()
) -> Batch:
    """The batch for a request: phrases and anchors in templates, kept, random and held prompts as they are, and ""."""
    wanted = [(phrase, concept.anchor or "") for concept in request.concepts for phrase in concept.phrases]
    anchors = list(dict.fromkeys(anchor for _, anchor in wanted))
    target = tokenized(model, [phrase for phrase, _ in wanted], templates)
    anchor = tokenized(model, anchors, templates)
    others = tokenized(model, [*request.keep, *prior, *choice.hold, ""], ["{}"])
    turns = [anchors.index(becomes) * len(templates) + turn for _, becomes in wanted for turn in range(len(templates))]
    pairs = _pairs(target, anchor.rows(turns), choice)
    prompts = (*target.prompts, *anchor.prompts, *others.prompts)
    first, second = len(target.prompts), len(target.prompts) + len(anchor.prompts)
    stays = len(request.keep) + len(prior)
    still = [(second + row, position, weight) for row, position, weight in _still(others, stays, choice)]
    labels = tuple(f"{target.prompts[pair.row]} [{_part(target, pair)}]" for pair in pairs)
    sorts = [f"{wanted[pair.row // len(templates)][0]} [{_sort(target, pair)}]" for pair in pairs]
    columns = {name: index for index, name in enumerate(dict.fromkeys(sorts))}
    return Batch(
        prompts=(*prompts, *prompts),
        edited=len(prompts),
        targets=Cells.of((pair.row, pair.target, pair.weight) for pair in pairs),
        anchors=Cells.of((len(prompts) + first + turns[pair.row], pair.anchor, pair.weight) for pair in pairs),
        labels=labels,
        columns=torch.tensor([columns[one] for one in sorts]) if choice.averaged else torch.arange(len(labels)),
        column_labels=tuple(columns) if choice.averaged else labels,
        kept=Cells.of(
            [
                *_kept(anchor, range(len(anchor.prompts)), first, choice.pads),
                *_kept(others, range(len(request.keep)), second, choice.pads),
                *_kept(others, range(len(request.keep), stays), second, choice.pads, choice.prior_weight),
            ]
        ),
        still=Cells.of(still),
        still_labels=tuple(f"{prompts[row]!r} [token {position}]" for row, position, _ in still),
    )


def _kept(encoded: efface.Encoded, rows: range, first: int, pads: int, weight: float = 1.0) -> list[Cell]:
    """Tokens of prompts that are kept, each with its weight; prompt 0 is prompt `first` of the batch."""
    return [
        (first + row, position, weight * share)
        for row in rows
        for position, share in _tokens(encoded, row, min(pads, KEPT_PADS))
    ]


def _still(others: efface.Encoded, first: int, choice: Choice) -> list[Cell]:
    """Tokens that stay exactly: some of the last prompt, which is empty, and those of prompts `first` to the last."""
    last = len(others.prompts) - 1
    held = [(row, *token) for row in range(first, last) for token in _tokens(others, row, choice.pads)]
    return [*((last, *token) for token in _invariants(others, choice.invariants)), *held]


@dataclass(frozen=True)
class Pair:
    """One token of target prompt `row`, the token of its anchor prompt that it becomes, and its weight."""

    row: int
    target: int
    anchor: int
    weight: float


def _pairs(target: efface.Encoded, anchor: efface.Encoded, choice: Choice) -> list[Pair]:
    """The paired tokens of prompts i, prompt by prompt, a few of the padding standing for all of it."""
    found: list[dict[int, int]] = [{} for _ in target.prompts]
    for part in PARTS[choice.positions]:
        pairs = places(target, anchor, part)
        each = (pairs.prompts.tolist(), pairs.targets.tolist(), pairs.anchors.tolist())
        for row, one, other in zip(*each, strict=True):
            found[row][one] = other
    ends = target.end.tolist()
    return [
        Pair(row, position, found[row][position], weight)
        for row, end in enumerate(ends)
        for position, weight in _thinned(sorted(found[row]), end, choice.pads)
    ]


def _part(encoded: efface.Encoded, pair: Pair) -> str:
    start, stop, end = (int(places[pair.row]) for places in (encoded.start, encoded.stop, encoded.end))
    if pair.target < stop:
        return f"phrase {pair.target - start + 1}"
    if pair.target < end:
        return f"suffix {pair.target - stop + 1}"
    return "end" if pair.target == end else f"padding {pair.target - end}"


def _sort(encoded: efface.Encoded, pair: Pair) -> str:
    """What a token is in any template: a numbered one of the phrase, or of the suffix, the end, the padding."""
    part = _part(encoded, pair)
    return part if part.startswith("phrase") else part.split()[0]


def _tokens(encoded: efface.Encoded, row: int, pads: int) -> list[tuple[int, float]]:
    """Positions of a prompt after the start, a few of the padding standing for all of it, each with its weight."""
    return _thinned(range(1, encoded.ids.shape[1]), int(encoded.end[row]), pads)


def _invariants(encoded: efface.Encoded, count: int) -> list[tuple[int, float]]:
    """The start, which all prompts share, and positions of the last prompt, which is empty; `count` in all."""
    start = [(0, 1.0)] if count else []
    return start + _thinned(range(1, encoded.ids.shape[1]), 0, max(count - 1, 0))


def _thinned(positions: Sequence[int], end: int, count: int) -> list[tuple[int, float]]:
    """Positions up to `end`, and `count` of those after it, evenly spread, which share the weight of all of them."""
    text = [(position, 1.0) for position in positions if position <= end]
    padding = [position for position in positions if position > end]
    count = min(count, len(padding))
    steps = [round(step * (len(padding) - 1) / max(count - 1, 1)) for step in range(count)]
    return text + [(padding[step], len(padding) / count) for step in steps]


def _whole(rows: Tensor) -> Cells:
    return Cells(rows, torch.zeros_like(rows), torch.ones(len(rows), dtype=torch.float64))
