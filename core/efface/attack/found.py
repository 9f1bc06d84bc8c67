"""What a search has found: a prompt, and the meaning of words in it that have been given one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from efface.attack.words import Word, meaning


@dataclass(frozen=True)
class Found:
    """An input for a pipeline; `losses` are those of the search, first to last.

    `words` and, for each text encoder, their `vectors` (k, D) belong to the prompt; without any it is plain text.
    """

    prompt: str
    losses: tuple[float, ...]
    words: tuple[Word, ...] = ()
    vectors: Mapping[str, Tensor] = field(default_factory=dict)

    @contextmanager
    def understood(self, pipe: Any) -> Iterator[str]:
        """The prompt, while the pipeline takes its words in the sense that was found."""
        if not self.words:
            yield self.prompt
            return
        with meaning(pipe, self.words, self.vectors):
            yield self.prompt

    def to_json(self) -> dict[str, Any]:
        vectors = {name: table.tolist() for name, table in self.vectors.items()}
        return {
            "prompt": self.prompt,
            "words": [word.text for word in self.words],
            "vectors": vectors,
            "losses": list(self.losses),
        }
