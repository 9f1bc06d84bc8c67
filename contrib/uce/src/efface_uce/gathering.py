"""Reading the columns from the model, a few phrases at a time, so that a thousand concepts fit and can be resumed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

import efface
from efface.alignment import Tokens, aligned, kept
from efface_uce.gathered import Gathered

PROMPTS = 64


@dataclass(frozen=True)
class Part:
    """Columns (d, n) of some phrases and their anchors, and how many each prompt has, (prompts,)."""

    targets: Tensor
    anchors: Tensor
    counts: Tensor


def gather(model: efface.Model, request: efface.Request, tokens: Tokens, run: efface.Run) -> Gathered:
    """Every erased phrase in every template with its anchor in the same one, and every kept prompt.

    With a checkpoint folder each batch of phrases is kept there, and an interrupted run reads it again.
    """
    phrases = [(phrase, concept.anchor or "") for concept in request.concepts for phrase in concept.phrases]
    reader = Reader(model, request.templates, tokens, run, tuple(dict.fromkeys(anchor for _, anchor in phrases)))
    parts = list(reader.parts(phrases))
    keep = kept(model.encode_phrases(request.keep, ["{}"]), tokens) if request.keep else None
    return Gathered(
        prompts=tuple(prompt for phrase, _ in phrases for prompt in request.prompts(phrase)),
        counts=tuple(torch.cat([part.counts for part in parts]).tolist()),
        targets=torch.cat([part.targets for part in parts], 1),
        anchors=torch.cat([part.anchors for part in parts], 1),
        keep=keep,
    )


class Reader:
    """Columns of phrases. The anchors, each encoded once, also tell one model's checkpoints from another's."""

    def __init__(
        self, model: efface.Model, templates: Sequence[str], tokens: Tokens, run: efface.Run, anchors: tuple[str, ...]
    ) -> None:
        self.model, self.templates, self.tokens, self.run = model, templates, tokens, run
        self.rows = {anchor: row for row, anchor in enumerate(anchors)}
        self.anchors = model.encode_phrases(anchors, templates)

    def parts(self, phrases: Sequence[tuple[str, str]]) -> Iterator[Part]:
        """Batches of phrases in order; the same ones whatever was kept."""
        size = max(1, PROMPTS // len(self.templates))
        for first in range(0, len(phrases), size):
            self.run.progress(first, len(phrases), "encoding prompts")
            yield self._part(phrases[first : first + size])
        self.run.progress(len(phrases), len(phrases), "encoding prompts")

    def _part(self, phrases: Sequence[tuple[str, str]]) -> Part:
        rows = [self.rows[anchor] * len(self.templates) + at for _, anchor in phrases for at in self._each]
        anchors = self.anchors.rows(rows)
        checkpoint = self.run.checkpoint("uce", self.tokens, list(self.templates), phrases, anchors.hidden)
        state = checkpoint.load()
        if state is None:
            targets = self.model.encode_phrases([phrase for phrase, _ in phrases], self.templates)
            pairs = aligned(targets, anchors, self.tokens)
            counts = torch.bincount(pairs.prompts, minlength=len(targets.prompts))
            part = Part(pairs.targets, pairs.anchors, counts)
            checkpoint.save(vars(part))
            return part
        return Part(**state.tensors)

    @property
    def _each(self) -> range:
        return range(len(self.templates))
