"""Sets of prompts whose features are summed, and what is made of each; sets that share a prompt are read together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from efface_gloce.words import Words

Prompts = tuple[str, ...]


@dataclass(frozen=True)
class Sets:
    """The distinct sets of a fit: centres, mappings, and targets with the centres about which they are measured."""

    centres: tuple[Prompts, ...]
    mappings: tuple[Prompts, ...]
    targets: Mapping[Prompts, tuple[Prompts, ...]]

    @classmethod
    def of(cls, concepts: Sequence[Words]) -> Sets:
        targets: dict[Prompts, dict[Prompts, None]] = {}
        for words in concepts:
            targets.setdefault(words.target, {})[words.centre] = None
        return cls(
            tuple(dict.fromkeys(words.centre for words in concepts)),
            tuple(dict.fromkeys(words.mapping for words in concepts)),
            {target: tuple(centres) for target, centres in targets.items()},
        )

    def pieces(self, room: int) -> list[list[Prompts]]:
        """The sets in pieces of work, no prompt in two of them.

        A piece has `room` prompts at most, or else one set with all that hang together with it. The first has all
        centres, which are few, because everything is measured about them.
        """
        found: list[list[Prompts]] = [[]]
        for bundle in _bundles([*self.centres, *self.mappings, *self.targets]):
            if found[0] and not set(bundle) & set(self.centres) and len(distinct([*found[-1], *bundle])) > room:
                found.append([])
            found[-1] += bundle
        return found


def distinct(sets: Iterable[Prompts]) -> list[str]:
    """The prompts of sets, each once."""
    return list(dict.fromkeys(prompt for prompts in sets for prompt in prompts))


def _bundles(sets: Sequence[Prompts]) -> list[list[Prompts]]:
    """The sets that hang together by prompts they share, each once, in the order of the first of each bundle."""
    above: dict[str, str] = {}

    def top(prompt: str) -> str:
        while (higher := above.get(prompt, prompt)) != prompt:
            prompt = higher
        return prompt

    for first, *rest in sets:
        for prompt in rest:
            if top(prompt) != top(first):
                above[top(prompt)] = top(first)
    found: dict[str, list[Prompts]] = {}
    for prompts in dict.fromkeys(sets):
        found.setdefault(top(prompts[0]), []).append(prompts)
    return list(found.values())
