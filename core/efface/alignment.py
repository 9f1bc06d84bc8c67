"""Which token embedding of a target prompt becomes which one of its anchor prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from efface.model import Encoded

Tokens = Literal["subject", "tail"]


@dataclass(frozen=True)
class Aligned:
    """Paired columns, `targets` and `anchors` both (d, n), and for each the index of its prompt (n,)."""

    targets: Tensor
    anchors: Tensor
    prompts: Tensor


def aligned(targets: Encoded, anchors: Encoded, tokens: Tokens) -> Aligned:
    """Pairs prompt i of one with prompt i of the other.

    `subject`: the last token of each phrase alone. `tail`: that token and all that follow it, up to the end of the
    sequence: in a causal text encoder the end-of-text token and the padding carry the phrase on.
    """
    length = targets.hidden.shape[1]
    last = torch.maximum(targets.subject, anchors.subject)
    counts = torch.ones_like(last) if tokens == "subject" else length - last
    prompts = torch.repeat_interleave(torch.arange(len(last)), counts)
    offsets = torch.cat([torch.arange(int(count)) for count in counts])
    return Aligned(
        targets.hidden[prompts, targets.subject[prompts] + offsets].T,
        anchors.hidden[prompts, anchors.subject[prompts] + offsets].T,
        prompts,
    )


def kept(encoded: Encoded, tokens: Tokens) -> Tensor:
    """The columns (d, n) of prompts that stay: each one's last word, or with `tail` all of its tokens."""
    if tokens == "subject":
        return encoded.at(encoded.subject).T
    return encoded.hidden.flatten(0, 1).T
