"""Rows of encoded prompts: joined, given other embeddings; and which of their tokens count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

import efface
from efface.alignment import Aligned, aligned

Tokens = Literal["tail", "subject", "all"]


def joined(parts: Sequence[efface.Encoded]) -> efface.Encoded:
    """All rows of all parts, in order."""
    pooled = [part.pooled for part in parts if part.pooled is not None]
    return efface.Encoded(
        prompts=tuple(prompt for part in parts for prompt in part.prompts),
        hidden=torch.cat([part.hidden for part in parts]),
        ids=torch.cat([part.ids for part in parts]),
        start=torch.cat([part.start for part in parts]),
        stop=torch.cat([part.stop for part in parts]),
        end=torch.cat([part.end for part in parts]),
        pooled=torch.cat(pooled) if pooled else None,
    )


def moved(encoded: efface.Encoded, hidden: Tensor, pooled: Tensor | None) -> efface.Encoded:
    """The same prompts with other embeddings, in the dtype and on the device of their own."""
    other = None if pooled is None or encoded.pooled is None else pooled.to(encoded.pooled)
    return replace(encoded, hidden=hidden.to(encoded.hidden), pooled=other)


def positions(encoded: efface.Encoded, row: int, tokens: Tokens) -> Tensor:
    """Where the tokens of a row are that stand for its phrase, (p,)."""
    length, subject = encoded.hidden.shape[1], int(encoded.subject[row])
    if tokens == "subject":
        return torch.tensor([subject])
    return torch.arange(0 if tokens == "all" else subject, length)


def columns(encoded: efface.Encoded, tokens: Tokens) -> Tensor:
    """These tokens of every row as columns (d, n)."""
    return torch.cat([encoded.hidden[row, positions(encoded, row, tokens)] for row in range(len(encoded.prompts))]).T


def paired(targets: efface.Encoded, anchors: efface.Encoded, tokens: Tokens) -> Aligned:
    """Tokens of each target with the tokens of its anchor; `all` adds what stands before the phrase."""
    if tokens != "all":
        return aligned(targets, anchors, tokens)
    tail, before = aligned(targets, anchors, "tail"), targets.start.minimum(anchors.start)
    prompts = torch.repeat_interleave(torch.arange(len(before)), before)
    places = torch.cat([torch.arange(int(count)) for count in before])
    return Aligned(
        torch.cat([targets.hidden[prompts, places].T, tail.targets], 1),
        torch.cat([anchors.hidden[prompts, places].T, tail.anchors], 1),
        torch.cat([prompts, tail.prompts]),
    )
