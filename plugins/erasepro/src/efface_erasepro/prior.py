"""Prompts of the model's own words, kept so that what no keep list names stays as well."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn.functional import normalize

import efface
from efface_erasepro.reading import embedded

LENGTHS = (1, 2, 3)  # words of a prompt, in turns
ENDING = "</w>"  # what a CLIP tokenizer writes behind the last piece of a word


@dataclass(frozen=True)
class Draw:
    """How many prompts to draw, the cosine from which a word is too near to the concept, and words to leave out."""

    count: int
    near: float
    exclude: tuple[str, ...] = ()


def prior(
    model: efface.Model, request: efface.Request, draw: Draw, clip_skip: int | None, generator: Generator
) -> tuple[str, ...]:
    """Prompts of one to three random words of the tokenizer, none of which resembles an erased phrase.

    A word resembles a phrase where their cosine reaches `near`: last tokens of the sequence, which have seen all of it,
    in the request's first template, less their mean over the words drawn.

    Reconstruction: the paper keeps nothing but the distance to the base weights.
    """
    left_out = {word.casefold() for word in draw.exclude}
    words = [word for word in vocabulary(model) if word not in left_out]
    drawn = _drawn(words, sum(LENGTHS[turn % len(LENGTHS)] for turn in range(draw.count)), generator)
    if not drawn:
        return ()
    phrases = [phrase for concept in request.concepts for phrase in concept.phrases]
    words = list(dict.fromkeys(drawn))
    template = request.templates[0]
    encoded = embedded(model, [template.replace("{}", text) for text in (*words, *phrases)], clip_skip)
    allowed = _apart(encoded.hidden[:, -1].double(), len(words), draw.near)
    fit = {word for word, free in zip(words, allowed.tolist(), strict=True) if free}
    return tuple(dict.fromkeys(_sentences([word for word in drawn if word in fit])))


def vocabulary(model: efface.Model) -> list[str]:
    """The words of two letters and more that the tokenizer knows as one token, sorted."""
    pieces = (piece for piece in model.pipe.tokenizer.get_vocab() if piece.endswith(ENDING))
    words = (piece.removesuffix(ENDING) for piece in pieces)
    return sorted(word for word in words if len(word) > 1 and word.isascii() and word.isalpha())


def _drawn(words: list[str], count: int, generator: Generator) -> list[str]:
    """Words in random order, each as often as any other, give or take one."""
    rounds = [torch.randperm(len(words), generator=generator) for _ in range(0, count, max(len(words), 1))]
    return [words[place] for order in rounds for place in order.tolist()][:count]


def _apart(features: Tensor, count: int, near: float) -> Tensor:
    """Which of the first `count` features (n, d) have a cosine below `near` with all of the others, (count,)."""
    centred = normalize(features - features[:count].mean(0), dim=1)
    apart: Tensor = (centred[:count] @ centred[count:].T).amax(1) < near
    return apart


def _sentences(words: list[str]) -> list[str]:
    """The words in prompts of 1, 2, 3, 1, ... of them, in order."""
    found, turn = [], 0
    while words:
        length = LENGTHS[turn % len(LENGTHS)]
        found.append(" ".join(words[:length]))
        words, turn = words[length:], turn + 1
    return found
