"""A prompt whose pictures are shown before and after, and what it is there for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["concept", "synonym", "neighbour", "scene", "control"]

LABELS: dict[Role, str] = {
    "concept": "erased concept",
    "synonym": "held-out synonym",
    "neighbour": "neighbour",
    "scene": "two-object scene",
    "control": "control",
}


@dataclass(frozen=True)
class Prompt:
    """A prompt and its role; None where no one says.

    `concept` names the erased concept; `synonym` calls it by a word that no request holds; `neighbour` is something
    near it; `scene` has it beside another thing; `control` has nothing to do with it.
    """

    text: str
    role: Role | None = None

    @property
    def label(self) -> str:
        return "prompt" if self.role is None else LABELS[self.role]

    def to_json(self) -> dict[str, str]:
        return {"text": self.text} | ({"role": self.role} if self.role else {})
