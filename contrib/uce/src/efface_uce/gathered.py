"""What UCE solves from: columns of erased phrases and their anchors, and columns that stay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

import efface
from efface.solver import Columns
from efface.solver.left import drift, left

TOGETHER = 4096  # columns in float64 at once
Delta = efface.LowRank | efface.Dense


@dataclass(frozen=True)
class Gathered:
    """Columns `targets` and `anchors` (d, n) and, where something is kept, `keep` (d, p), prompt after prompt.

    `prompts`: the erased phrases in their templates, concept by concept, phrase by phrase, template by template;
    `counts`: how many columns each of them has. Every kept prompt has equally many.
    """

    prompts: tuple[str, ...]
    counts: tuple[int, ...]
    targets: Tensor
    anchors: Tensor
    keep: Tensor | None = None

    @classmethod
    def of(cls, fitted: efface.Fitted) -> Gathered:
        """What a fit was solved from."""
        tensors, request = fitted.fit.tensors, fitted.request
        prompts = [text for one in request.concepts for phrase in one.phrases for text in request.prompts(phrase)]
        counts = tuple(fitted.fit.facts["columns"])
        return cls(tuple(prompts), counts, tensors["targets"], tensors["anchors"], tensors.get("keep"))

    @classmethod
    def joined(cls, fits: Sequence[efface.Fitted], request: efface.Request) -> Gathered:
        """What fitting the request at once would be solved from; all of it is in these fits."""
        concepts = {text: part for fitted in fits for text, part in _concepts(fitted).items()}
        keeps = {prompt: columns for fitted in fits for prompt, columns in _keeps(fitted).items()}
        parts = [concepts[concept.text] for concept in request.concepts]
        return cls(
            prompts=tuple(prompt for part in parts for prompt in part.prompts),
            counts=tuple(count for part in parts for count in part.counts),
            targets=torch.cat([part.targets for part in parts], 1),
            anchors=torch.cat([part.anchors for part in parts], 1),
            keep=torch.cat([keeps[prompt] for prompt in request.keep], 1) if request.keep else None,
        )

    def tensors(self) -> dict[str, Tensor]:
        kept = {} if self.keep is None else {"keep": self.keep}
        return {"targets": self.targets, "anchors": self.anchors} | kept

    def columns(self, weight: float = 1.0) -> Iterator[Columns]:
        """Targets onto anchors in float64, each with this weight; some at a time, for a thousand concepts have many."""
        for targets, anchors in zip(
            *(torch.split(each, TOGETHER, 1) for each in (self.targets, self.anchors)), strict=True
        ):
            yield Columns.pairs(targets, anchors, torch.full((targets.shape[1],), weight))

    def residual(self, deltas: Sequence[Delta]) -> dict[str, float]:
        """For each prompt the share of the way to its anchor that maps leave, over all its columns together."""
        return dict(zip(self.prompts, left(deltas, self.columns(), self._owners(self.counts)), strict=True))

    def composition(
        self, request: efface.Request, stacked: Sequence[Delta], joint: Sequence[Delta]
    ) -> dict[str, dict[str, object]]:
        """The same for each concept, under maps put side by side and under the joint one; how both move what stays."""
        each = len(request.templates)
        sizes = [each * len(concept.phrases) for concept in request.concepts]
        owners = self._owners([int(part.sum()) for part in torch.split(torch.tensor(self.counts), sizes)])
        both = zip(left(stacked, self.columns(), owners), left(joint, self.columns(), owners), strict=True)
        named = zip(request.concepts, both, strict=True)
        found: dict[str, dict[str, object]] = {
            "composition": {concept.text: {"stacked": one, "joint": other} for concept, (one, other) in named}
        }
        if self.keep is not None:
            found["kept"] = {"stacked": drift(stacked, self.keep), "joint": drift(joint, self.keep)}
        return found

    @staticmethod
    def _owners(counts: Sequence[int]) -> Tensor:
        return torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))


def _concepts(fitted: efface.Fitted) -> dict[str, Gathered]:
    """Each concept's own part of what a fit was solved from."""
    whole, first, start, found = Gathered.of(fitted), 0, 0, {}
    for concept in fitted.request.concepts:
        last = first + len(concept.phrases) * len(fitted.request.templates)
        stop = start + sum(whole.counts[first:last])
        found[concept.text] = replace(
            whole,
            prompts=whole.prompts[first:last],
            counts=whole.counts[first:last],
            targets=whole.targets[:, start:stop],
            anchors=whole.anchors[:, start:stop],
        )
        first, start = last, stop
    return found


def _keeps(fitted: efface.Fitted) -> Mapping[str, Tensor]:
    """Each kept prompt's columns."""
    keep, prompts = fitted.fit.tensors.get("keep"), fitted.request.keep
    return {} if keep is None else dict(zip(prompts, keep.chunk(len(prompts), 1), strict=True))
