"""Reading the columns from the model, a few phrases at a time, so that a thousand concepts fit and can be resumed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

import efface
from efface.alignment import Tokens, aligned, kept
from efface.fingerprint import fingerprint
from efface_uce.gathered import Gathered

PROMPTS = 64


@dataclass(frozen=True)
class Part:
    """Columns (d, n) of some phrases and their anchors, and how many each prompt has, (prompts,); on the CPU."""

    targets: Tensor
    anchors: Tensor
    counts: Tensor


def gather(model: efface.Model, request: efface.Request, tokens: Tokens, run: efface.Run) -> Gathered:
    """Every erased phrase in every template with its anchor in the same one, and every kept prompt.

    Phrases are read in batches, shared out between the processes of the run: the same ones however many there are.
    With a checkpoint folder each batch is kept there, and an interrupted run reads it again.
    """
    phrases = [(phrase, concept.anchor or "") for concept in request.concepts for phrase in concept.phrases]
    parts = list(Reader(model, request.templates, tokens, run).parts(phrases))
    keep = kept(model.encode_phrases(request.keep, ["{}"]), tokens).cpu() if request.keep else None
    return Gathered(
        prompts=tuple(prompt for phrase, _ in phrases for prompt in request.prompts(phrase)),
        counts=tuple(torch.cat([part.counts for part in parts]).tolist()),
        targets=torch.cat([part.targets for part in parts], 1),
        anchors=torch.cat([part.anchors for part in parts], 1),
        keep=keep,
    )


@dataclass(frozen=True)
class Reader:
    """Columns of phrases from a model."""

    model: efface.Model
    templates: Sequence[str]
    tokens: Tokens
    run: efface.Run

    @cached_property
    def base(self) -> dict[str, Any] | None:
        """What identifies the model in checkpoints; None where none are kept."""
        return fingerprint(self.model.pipe, self.model.points("text")) if self.run.folder is not None else None

    def parts(self, phrases: Sequence[tuple[str, str]]) -> Iterator[Part]:
        """Batches of phrases in order; the same ones whatever was kept."""
        size = max(1, PROMPTS // len(self.templates))
        batches = [phrases[first : first + size] for first in range(0, len(phrases), size)]
        self.run.progress(0, len(phrases), "encoding prompts")
        done = 0
        for batch, part in zip(batches, self.run.processes.each(batches, self._part), strict=True):
            yield part
            done += len(batch)
            self.run.progress(done, len(phrases), "encoding prompts")

    def _part(self, phrases: Sequence[tuple[str, str]]) -> Part:
        """One batch, its anchors each encoded once.

        A checkpoint is of one model: its fingerprint sees the weights, the encoded anchors see adapters, which the
        fingerprint leaves out.
        """
        different = list(dict.fromkeys(anchor for _, anchor in phrases))
        encoded = self.model.encode_phrases(different, self.templates)
        each = range(len(self.templates))
        anchors = encoded.rows([different.index(anchor) * len(each) + at for _, anchor in phrases for at in each])
        identity = (self.base, self.tokens, list(self.templates), phrases, anchors.hidden)
        checkpoint = self.run.checkpoint("uce", *identity)
        state = checkpoint.load()
        if state is None:
            targets = self.model.encode_phrases([phrase for phrase, _ in phrases], self.templates)
            pairs = aligned(targets, anchors, self.tokens)
            counts = torch.bincount(pairs.prompts, minlength=len(targets.prompts))
            part = Part(pairs.targets.cpu(), pairs.anchors.cpu(), counts.cpu())
            checkpoint.save(vars(part))
            return part
        return Part(**state.tensors)
