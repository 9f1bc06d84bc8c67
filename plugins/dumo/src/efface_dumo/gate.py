"""The prompt gate: how much a prompt has to do with the erased concept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

import efface

Kind = Literal["off", "both", "similarity", "overlap"]


@dataclass(frozen=True, eq=False)
class Gate:
    """One concept's gate: m = factor x the best score over its names, 0 where that score is below `threshold`.

    `embeddings` (n, T, D) and `ids` are of the names alone, as the U-Net and the first tokenizer see them;
    `special` are the ids of tokens that mean nothing.
    """

    kind: Kind
    factor: float
    threshold: float
    embeddings: Tensor
    ids: Sequence[Sequence[int]]
    special: frozenset[int]

    def strengths(self, call: efface.Call) -> Tensor | None:
        """m for every row of the pass, (B,); None where it is 1 throughout. The unconditional half has its prompts'.

        A prompt whose token ids are not known, or that is of another length than the names, passes in full.
        """
        known = None if self.kind == "off" else self._known(call)
        if known is not None:
            return known
        return None if self.factor == 1 else call.text.new_full(call.text.shape[:1], self.factor)

    def _known(self, call: efface.Call) -> Tensor | None:
        ids, conditional = call.ids, call.conditional
        if ids is None or conditional is None or call.text.shape[1:] != self.embeddings.shape[1:]:
            return None
        found = self.of(call.text[conditional], ids[conditional].tolist())
        return found.repeat(len(ids) // len(found))

    def of(self, embeddings: Tensor, ids: Sequence[Sequence[int]]) -> Tensor:
        """m for prompts with these embeddings (B, T, D) and token ids, (B,)."""
        best = self.scores(embeddings, ids).max(1).values
        return torch.where(best >= self.threshold, self.factor * best, torch.zeros_like(best))

    def scores(self, embeddings: Tensor, ids: Sequence[Sequence[int]]) -> Tensor:
        """The score of every prompt against every name, (B, n): the larger one where both kinds count."""
        found = []
        if self.kind in ("both", "similarity"):
            found.append(similarity(embeddings, self.embeddings.to(embeddings.device)))
        if self.kind in ("both", "overlap"):
            found.append(overlap(ids, self.ids, self.special).to(embeddings.device))
        return torch.stack([score.to(_wide(embeddings.dtype)) for score in found]).max(0).values


def similarity(prompts: Tensor, names: Tensor) -> Tensor:
    """Cosines (B, n) of flattened embeddings (B, T, D) and (n, T, D), all tokens and the padding included."""
    width = torch.promote_types(_wide(prompts.dtype), names.dtype)
    one, other = (torch.nn.functional.normalize(x.to(width).flatten(1), dim=1, eps=0.0) for x in (prompts, names))
    return one @ other.T


def overlap(prompts: Sequence[Sequence[int]], names: Sequence[Sequence[int]], special: frozenset[int]) -> Tensor:
    """The share (B, n) of a name's distinct tokens that the prompt has too, special tokens left out."""
    of_prompts, of_names = ([set(ids) - special for ids in texts] for texts in (prompts, names))
    shares = [[len(prompt & name) / len(name) if name else 0.0 for name in of_names] for prompt in of_prompts]
    return torch.tensor(shares, dtype=torch.float64)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
