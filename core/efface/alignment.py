"""Which token of a target prompt becomes which one of its anchor prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from efface.model import Encoded

Tokens = Literal["subject", "span", "tail"]


@dataclass(frozen=True)
class Places:
    """Paired positions, (n,) each: in prompt `prompts[j]` token `targets[j]` becomes token `anchors[j]`."""

    prompts: Tensor
    targets: Tensor
    anchors: Tensor


@dataclass(frozen=True)
class Aligned:
    """Paired columns, `targets` and `anchors` both (d, n), and for each the index of its prompt (n,)."""

    targets: Tensor
    anchors: Tensor
    prompts: Tensor


def places(targets: Encoded, anchors: Encoded, tokens: Tokens) -> Places:
    """Pairs the tokens of prompt i of one with those of prompt i of the other; looks at no embedding.

    `subject`: the last token of each phrase alone. `span`: all tokens of the phrase, last to last; an anchor's surplus
    ones are left out, and its first one stands in where it has too few. `tail`: the last token and all that follow it,
    up to the end of the sequence: in a causal text encoder the end-of-text token and the padding carry the phrase on.
    An empty anchor is its end-of-text token, and what follows the phrase is paired one to one all the same.
    """
    each = [_offsets(targets, anchors, index, tokens) for index in range(len(targets.prompts))]
    prompts = torch.repeat_interleave(torch.arange(len(each)), torch.tensor([len(offsets) for offsets in each]))
    offsets = torch.cat(each)
    subject, first = anchors.subject[prompts], anchors.start[prompts]
    within = torch.where(first < anchors.stop[prompts], torch.maximum(subject + offsets, first), subject)
    beyond = anchors.stop[prompts] + offsets - 1
    return Places(prompts, targets.subject[prompts] + offsets, torch.where(offsets > 0, beyond, within))


def aligned(targets: Encoded, anchors: Encoded, tokens: Tokens) -> Aligned:
    """The embeddings at the paired `places`."""
    pairs = places(targets, anchors, tokens)
    return Aligned(
        targets.hidden[pairs.prompts, pairs.targets].T, anchors.hidden[pairs.prompts, pairs.anchors].T, pairs.prompts
    )


def kept(encoded: Encoded, tokens: Tokens) -> Tensor:
    """The columns (d, n) of prompts that stay: each one's last word, with `span` its phrase, with `tail` all tokens."""
    if tokens == "subject":
        return encoded.at(encoded.subject).T
    if tokens == "span":
        phrases = zip(encoded.hidden, encoded.start, encoded.stop, strict=True)
        return torch.cat([row[start:stop] for row, start, stop in phrases]).T
    return encoded.hidden.flatten(0, 1).T


def _offsets(targets: Encoded, anchors: Encoded, index: int, tokens: Tokens) -> Tensor:
    """The paired tokens of one prompt, counted from the phrase's last one."""
    leading = int(targets.stop[index] - targets.start[index]) - 1 if tokens == "span" else 0
    following = targets.ids.shape[1] - int(torch.maximum(targets.stop[index], anchors.stop[index]))
    return torch.arange(-leading, 1 + following if tokens == "tail" else 1)
