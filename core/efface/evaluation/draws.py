"""Which prompts are drawn with which seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, islice

PER_PROMPT = 5


@dataclass(frozen=True)
class Draw:
    """One prompt with a few seeds: one batch, whose pictures are made and kept together."""

    prompt: str
    seeds: tuple[int, ...]


def spread(prompts: Sequence[str], seeds: Sequence[int], batch_size: int) -> tuple[Draw, ...]:
    """Every seed once: prompts take turns at five seeds each, as often as it takes; nothing without prompts."""
    if not prompts:
        return ()
    turns: dict[str, list[int]] = {}
    for turn, first in enumerate(range(0, len(seeds), PER_PROMPT)):
        turns.setdefault(prompts[turn % len(prompts)], []).extend(seeds[first : first + PER_PROMPT])
    return tuple(
        Draw(prompt, tuple(own[first : first + batch_size]))
        for prompt, own in turns.items()
        for first in range(0, len(own), batch_size)
    )


def other_seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    """As many seeds, none of them among these."""
    taken = set(seeds)
    return tuple(islice((seed for seed in count() if seed not in taken), len(seeds)))
