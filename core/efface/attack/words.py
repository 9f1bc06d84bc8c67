"""Words without a meaning of their own, and the vectors that give them one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from efface.errors import BadConcept, EffaceError
from efface.model import Model
from efface_hooks.point import TEXT_ENCODERS

Vectors = Mapping[str, Tensor]
"""For each text encoder the vectors (k, D) that stand in for the input embeddings of k words."""


@dataclass(frozen=True)
class Word:
    """A text that every tokenizer of a pipeline turns into one token, whose number it is."""

    text: str
    token: int


def encoders(pipe: Any) -> dict[str, tuple[Any, Any]]:
    """The text encoders that a pipeline has, each with its tokenizer."""
    pairs = zip(TEXT_ENCODERS, ("tokenizer", "tokenizer_2"), strict=True)
    return {
        name: (getattr(pipe, name), getattr(pipe, tokenizer))
        for name, tokenizer in pairs
        if getattr(pipe, name, None) is not None
    }


def words(pipe: Any) -> Iterator[Word]:
    """Every word that is one token, the same in all tokenizers, from the last of the vocabulary to the first.

    CLIP's vocabulary puts rare words last.
    """
    tokenizers = [tokenizer for _, tokenizer in encoders(pipe).values()]
    special = set(tokenizers[0].all_special_ids)
    for token in reversed(range(len(tokenizers[0]))):
        text = tokenizers[0].decode([token]).strip()
        if token in special or not text:
            continue
        if all(tokenizer(text, add_special_tokens=False).input_ids == [token] for tokenizer in tokenizers):
            yield Word(text, token)


def placeholders(pipe: Any, count: int, avoid: Sequence[str]) -> tuple[Word, ...]:
    """The rarest words that are no part of these texts; EffaceError if there are too few."""
    taken = {part for text in avoid for part in text.casefold().split()}
    found = []
    for word in words(pipe):
        if word.text.casefold() not in taken:
            found.append(word)
        if len(found) == count:
            return tuple(found)
    raise EffaceError(f"The model's vocabulary has only {len(found)} words that are one token; {count} were asked for")


def check_length(model: Model, concept: str, template: str, prompt: str, count: int) -> None:
    """BadConcept where the model would cut off the concept's prompt, or the one with this many words of a search."""
    model.check_phrases([concept], [template])
    model.check_phrases([template.replace("{}", concept)], ["{}"])
    try:
        model.check_phrases([prompt], ["{}"])
    except BadConcept as error:
        raise BadConcept(f"{error}; take fewer words (setting 'words', now {count}) or a shorter template") from error


def embeddings(pipe: Any) -> dict[str, Tensor]:
    """The table of input embeddings (V, D) of each text encoder."""
    return {name: encoder.get_input_embeddings().weight.detach() for name, (encoder, _) in encoders(pipe).items()}


@contextmanager
def meaning(pipe: Any, named: Sequence[Word], vectors: Vectors) -> Iterator[None]:
    """Inside, the words have these vectors in place of their own input embeddings."""
    handles = [
        encoder.get_input_embeddings().register_forward_hook(_replacing(named, vectors[name]))
        for name, (encoder, _) in encoders(pipe).items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _replacing(named: Sequence[Word], vectors: Tensor) -> Callable[[nn.Module, tuple[Tensor], Tensor], Tensor]:
    def replace(_module: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:
        ids = args[0].unsqueeze(-1)
        for word, vector in zip(named, vectors, strict=True):
            output = torch.where(ids == word.token, vector.to(output), output)
        return output

    return replace
