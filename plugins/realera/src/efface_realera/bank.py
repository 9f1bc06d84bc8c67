"""The bank of real phrases among which neighbours are found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import efface
from efface.concept import same

WORD_END = "</w>"
SHORTEST = 3


def phrases(
    tokenizer: object, request: efface.Request, given: Sequence[str], exclude: Sequence[str], most: int
) -> list[str]:
    """The bank: the given phrases, else the tokenizer's whole words; without what is erased, excluded or an anchor.

    A phrase goes also when it holds an erased or excluded phrase as words of its own ("black cat" for "cat"). Words
    that stand in a keep prompt or an anchor go as well: they are no neighbours, whatever their embeddings say.
    """
    erased = [phrase for concept in request.concepts for phrase in concept.phrases]
    kept = [*request.keep, *(concept.anchor or "" for concept in request.concepts)]
    found = list(given) or whole_words(tokenizer)
    return [phrase for phrase in found if not _holds_any(phrase, [*erased, *exclude]) and not _held(phrase, kept)][
        :most
    ]


def whole_words(tokenizer: object) -> list[str]:
    """The vocabulary's words of three letters or more, in the order of their ids: in BPE the frequent ones first."""
    get_vocab = getattr(tokenizer, "get_vocab", None)
    vocabulary: Mapping[str, int] = get_vocab() if callable(get_vocab) else {}
    ordered = sorted(vocabulary, key=vocabulary.__getitem__)
    words = [token.removesuffix(WORD_END) for token in ordered if token.endswith(WORD_END)]
    return [word for word in words if len(word) >= SHORTEST and word.isalpha()]


def _holds_any(phrase: str, others: Iterable[str]) -> bool:
    return any(_within(other, phrase) for other in others)


def _held(phrase: str, texts: Iterable[str]) -> bool:
    return any(_within(phrase, text) for text in texts)


def _within(words: str, text: str) -> bool:
    """Whether a phrase stands in a text as words of its own."""
    return f" {same(words)} " in f" {same(text)} "
