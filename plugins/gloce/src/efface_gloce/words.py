"""Which prompts stand for a concept, for what it becomes, for what is next to it, and for nothing special."""

from __future__ import annotations

import importlib.resources
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

import efface
from efface.concept import Kind, same

LISTS = ("objects", "persons", "artists", "styles")
POOLS: dict[Kind, tuple[str, ...]] = {
    "object": ("objects",),
    "person": ("persons",),
    "style": ("artists", "styles"),
    "explicit": ("objects",),
}
TEMPLATES: dict[Kind, str] = {
    "object": "a picture of a {}",
    "person": "a picture of {}",
    "style": "a picture in {} style",
    "explicit": "{}",
}
CENTRES: dict[Kind, str] = {
    "object": "a picture of something",
    "person": "a picture of a person",
    "style": "a photograph",
    "explicit": "a person",
}
COMPARED = slice(1, 9)
ARTICLE = re.compile(r"(a|an|the) (?=\S)", re.IGNORECASE)
BRINGS_ARTICLE = re.compile(r"\b(a|an|the) (\S+ )?\{\}", re.IGNORECASE)


@dataclass(frozen=True)
class Choice:
    """What is given by hand, and how the rest is chosen.

    `mapping`, `boundary` and `centre` are words by hand, empty to choose; `pool` are words to choose from, the name of
    a list standing for its words. `mappings` says how many to choose, `boundaries` how many there are to be with the
    prompts to keep. `erased` are names that other erasures are for. `template` takes the words, "" for one that goes
    with the kind of concept.
    """

    template: str = ""
    mapping: tuple[str, ...] = ()
    boundary: tuple[str, ...] = ()
    centre: str = ""
    pool: tuple[str, ...] = ()
    boundaries: int = 3
    mappings: int = 0
    erased: tuple[str, ...] = ()


@dataclass(frozen=True)
class Words:
    """The prompts of one concept, and the words that were left out because they name something erased.

    `boundary` are prompts next to the concept, `kept` those that the request keeps: both set the threshold.
    """

    target: tuple[str, ...]
    mapping: tuple[str, ...]
    boundary: tuple[str, ...]
    centre: tuple[str, ...]
    kept: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()

    def to_json(self) -> dict[str, list[str]]:
        return {name: list(prompts) for name, prompts in vars(self).items() if prompts}


@dataclass(frozen=True)
class Phrasing:
    """Templates that words go into, without their article where the template brings one itself."""

    templates: tuple[str, ...]

    def prompts(self, words: Iterable[str]) -> tuple[str, ...]:
        """Every word in every template."""
        return tuple(_put(word, template) for word in words for template in self.templates)


def words_of(model: efface.Model, request: efface.Request, choice: Choice) -> list[Words]:
    """The prompts of each concept of a request."""
    erased = [*choice.erased, *(phrase for concept in request.concepts for phrase in concept.phrases)]
    return [_words(model, concept, request, choice, erased) for concept in request.concepts]


def similarity(model: efface.Model, target: str, prompts: Sequence[str]) -> torch.Tensor:
    """The mean cosine between tokens 1 to 8 of a prompt and of each of the others, (n,)."""
    wanted, others = model.encode([target]).hidden.float(), model.encode(prompts).hidden.float()
    return torch.cosine_similarity(wanted[:, COMPARED], others[:, COMPARED], dim=-1).mean(1).cpu()


def word_list(name: str) -> tuple[str, ...]:
    """A list that comes with the plugin."""
    text = importlib.resources.files("efface_gloce").joinpath("wordlists", f"{name}.txt").read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if line)


def phrasing(concept: efface.Concept, request: efface.Request, template: str) -> Phrasing:
    """The request's own templates, or else the given one, or else the usual one for the kind of concept."""
    return Phrasing(request.templates if request.templates != ("{}",) else (template or TEMPLATES[concept.kind],))


def _put(word: str, template: str) -> str:
    return template.replace("{}", _bare(word) if BRINGS_ARTICLE.search(template) else word)


def _bare(word: str) -> str:
    """The word without an article before it."""
    return ARTICLE.sub("", word, count=1) if ARTICLE.match(word) else word


def _words(
    model: efface.Model, concept: efface.Concept, request: efface.Request, choice: Choice, erased: Sequence[str]
) -> Words:
    own = phrasing(concept, request, choice.template)
    target = own.prompts(concept.phrases)
    kept, refused = _parted(request.keep, erased, _is_said)
    pool, left_out = _parted(_pool(model, concept, choice), erased, operator.contains)
    by_hand, taken_out = _parted(choice.boundary, erased, _is_said)
    becomes, unfit = _parted(choice.mapping, erased, _is_said)
    ranked = _ranked(model, target[0], pool, own)
    boundary = by_hand if choice.boundary else ranked[::-1][: max(0, choice.boundaries - len(kept))]
    if not boundary and not kept:
        raise efface.BadConcept(
            f"Concept {concept.text!r}: no words are left that are next to it and stay. Give some as boundary "
            "(--set boundary=dog,bird), as pool, or as prompts to keep"
        )
    if unfit and not becomes:
        raise efface.BadConcept(
            f"Concept {concept.text!r}: it cannot become {', '.join(map(repr, unfit))}, which is erased; "
            "give other words as mapping, or an anchor"
        )
    return Words(
        target=target,
        mapping=_mapping(model, concept, own, becomes or ranked[: choice.mappings]),
        boundary=own.prompts(boundary),
        centre=_centre(model, concept, choice, own),
        kept=tuple(kept),
        dropped=(*refused, *(taken_out if choice.boundary else left_out), *unfit),
    )


def _mapping(model: efface.Model, concept: efface.Concept, own: Phrasing, words: Sequence[str]) -> tuple[str, ...]:
    """The anchor; without one the words, by hand or the least similar of the pool, or else the neutral prompt."""
    anchor = concept.anchor or ""
    if anchor not in ("", model.neutral):
        return own.prompts([anchor])
    return own.prompts(words) or (anchor,)


def _centre(model: efface.Model, concept: efface.Concept, choice: Choice, own: Phrasing) -> tuple[str, ...]:
    return own.prompts([choice.centre]) if choice.centre else (model.neutral or CENTRES[concept.kind],)


def _pool(model: efface.Model, concept: efface.Concept, choice: Choice) -> Iterator[str]:
    """The words to choose from; of a list only those that the model can have learnt."""
    for entry in choice.pool or POOLS[concept.kind]:
        yield from _known(model, word_list(entry)) if entry in LISTS else [entry]


def _known(model: efface.Model, words: Sequence[str]) -> list[str]:
    """The words that the tokenizer does not split into crumbs of fewer than three letters."""
    tokens = model.pipe.tokenizer(list(words), add_special_tokens=False).input_ids
    return [
        word
        for word, ids in zip(words, tokens, strict=True)
        if len(ids) <= max(len(word.split()), sum(map(str.isalpha, word)) // 3)
    ]


def _parted(
    words: Iterable[str], erased: Sequence[str], names: Callable[[str, str], bool]
) -> tuple[list[str], list[str]]:
    """Each word once: those that stay, and those of which `names(word, name)` is true for something erased."""
    distinct: dict[str, str] = {}
    for word in words:
        distinct.setdefault(same(_bare(word)), word)
    refused = [key for key in distinct if any(names(key, same(_bare(name))) for name in erased)]
    return [word for key, word in distinct.items() if key not in refused], [distinct[key] for key in refused]


def _is_said(text: str, name: str) -> bool:
    """Whether a name is among the words of a text, also with an s: "cats" says cat, "a cartoon" does not say car."""
    return re.search(rf"(?<!\w){re.escape(name)}(e?s)?(?!\w)", text) is not None


def _ranked(model: efface.Model, target: str, words: Sequence[str], own: Phrasing) -> list[str]:
    """The words from the least to the most similar."""
    if not words:
        return []
    order = similarity(model, target, Phrasing(own.templates[:1]).prompts(words)).argsort(stable=True)
    return [words[index] for index in order.tolist()]
