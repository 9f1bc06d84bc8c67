"""A prompt whose pictures are shown before and after, and what it is there for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["concept", "scene", "control"]

LABELS: dict[Role, str] = {"concept": "erased concept", "scene": "two-object scene", "control": "control"}


@dataclass(frozen=True)
class Prompt:
    """A prompt that names the concept alone, names it beside another thing, or does not name it; None where no one
    says."""

    text: str
    role: Role | None = None

    @property
    def label(self) -> str:
        return "prompt" if self.role is None else LABELS[self.role]

    def to_json(self) -> dict[str, str]:
        return {"text": self.text} | ({"role": self.role} if self.role else {})
