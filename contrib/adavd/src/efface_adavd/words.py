"""The tokens that a fit starts from, before any layer has made values of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

import efface

Tokens = Literal["tail", "subject"]


@dataclass(frozen=True)
class Words:
    """Embeddings of the erased tokens and of what takes their places (n, D), relative to `centre` (T, D).

    `instead` is None where nothing takes their place.
    """

    concept: Tensor
    instead: Tensor | None
    centre: Tensor

    @classmethod
    def of(
        cls, model: efface.Model, request: efface.Request, *, tokens: Tokens, relative: bool, anchored: bool
    ) -> Words:
        pairs = [(phrase, one.anchor or "") for one in request.concepts for phrase in one.phrases]
        erased = model.encode_phrases([phrase for phrase, _ in pairs], request.templates)
        anchors = model.encode_phrases([anchor for _, anchor in pairs], request.templates)
        centre = model.encode([""]).hidden[0].float()
        if not relative:
            centre = torch.zeros_like(centre)
        places = [(row, place) for row in range(len(erased.prompts)) for place in phrase_tokens(erased, row, tokens)]
        partners = [(row, partner(erased, anchors, row, place)) for row, place in places]
        return cls(picked(erased, places, centre), picked(anchors, partners, centre) if anchored else None, centre)

    def values(self, weight: Tensor) -> dict[str, Tensor]:
        """All of it as a layer's values: its weight is (m, D)."""
        parts = {"concept": self.concept, "instead": self.instead, "centre": self.centre}
        return {name: part @ weight.T for name, part in parts.items() if part is not None}


def phrase_tokens(encoded: efface.Encoded, row: int, tokens: Tokens) -> list[int]:
    """Where a phrase is in its prompt: at its last token, with `tail` also at all that follow it."""
    last = int(encoded.subject[row])
    return [last] if tokens == "subject" else list(range(last, encoded.hidden.shape[1]))


def partner(erased: efface.Encoded, anchors: efface.Encoded, row: int, place: int) -> int:
    """Where the anchor's prompt has what stands at a place of the phrase's: as far behind the last token."""
    behind = place - int(erased.subject[row])
    return min(int(anchors.subject[row]) + behind, anchors.hidden.shape[1] - 1)


def picked(encoded: efface.Encoded, places: list[tuple[int, int]], centre: Tensor) -> Tensor:
    """The embeddings at (row, place), each less the centre's at that place, (n, D)."""
    rows, columns = torch.tensor(places).T
    return encoded.hidden.float()[rows, columns] - centre[columns]
