"""The prompts of a request: every erased phrase in every template, and its anchor in the same one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import efface


@dataclass(frozen=True, eq=False)
class Prompts:
    """Rows of targets and their anchors, phrase by phrase; for each row the numbers of its concept and template."""

    targets: efface.Encoded
    anchors: efface.Encoded
    concept: tuple[int, ...]
    template: tuple[int, ...]

    @classmethod
    def of(cls, model: efface.Model, request: efface.Request) -> Self:
        phrases = [
            (number, phrase, concept.anchor or "")
            for number, concept in enumerate(request.concepts)
            for phrase in concept.phrases
        ]
        return cls(
            model.encode_phrases([phrase for _, phrase, _ in phrases], request.templates),
            model.encode_phrases([anchor for _, _, anchor in phrases], request.templates),
            tuple(number for number, _, _ in phrases for _ in request.templates),
            tuple(number for _ in phrases for number in range(len(request.templates))),
        )

    def __len__(self) -> int:
        return len(self.concept)

    def rows(self, concept: int, template: int | None = None) -> Sequence[int]:
        """The rows of one concept, in all templates or in one."""
        wanted = enumerate(zip(self.concept, self.template, strict=True))
        return [row for row, (c, t) in wanted if c == concept and template in (None, t)]
