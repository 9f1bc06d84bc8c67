"""What to erase, what it becomes, and what to keep."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from efface.errors import BadConcept

Kind = Literal["object", "style", "person", "explicit"]

_UNPRINTABLE = {"Cc": "a control character", "Cs": "a lone surrogate", "Zl": "a line separator"}


@dataclass(frozen=True)
class Concept:
    """One thing to erase, by the words that call it up.

    `anchor` is what it becomes: None leaves that to the model's neutral prompt, "" is the empty prompt.
    Whitespace is trimmed and collapsed, as text encoders do.
    """

    text: str
    anchor: str | None = None
    synonyms: tuple[str, ...] = ()
    kind: Kind = "object"

    def __post_init__(self) -> None:
        _set(self, "text", _filled(self.text, "A concept"))
        _set(self, "synonyms", tuple(_filled(s, self._part("a synonym")) for s in self._synonyms()))
        if self.anchor is not None:
            _set(self, "anchor", _words(self.anchor, self._part("the anchor")))
        if self.kind not in get_args(Kind):
            kinds = ", ".join(get_args(Kind))
            raise BadConcept(f"Concept {self.text!r} has no kind {self.kind!r}; kinds: {kinds}")
        self._check_distinct()

    @property
    def phrases(self) -> tuple[str, ...]:
        """Everything that is erased: the text and its synonyms."""
        return (self.text, *self.synonyms)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"synonyms": list(self.synonyms)}

    @classmethod
    def from_json(cls, data: object) -> Concept:
        """The concept that `to_json` wrote; fields with a default may be left out."""
        return cls(**_fields(cls, data, required="text"))

    def _synonyms(self) -> Sequence[str]:
        return _sequence(self.synonyms, f"The synonyms of concept {self.text!r}")

    def _part(self, part: str) -> str:
        return f"Concept {self.text!r}: {part}"

    def _check_distinct(self) -> None:
        twice = _repeated(self.phrases)
        if twice is not None:
            raise BadConcept(f"Concept {self.text!r} lists {twice!r} twice")
        if self.anchor is not None and same(self.anchor) in map(same, self.phrases):
            raise BadConcept(
                f"Concept {self.text!r} has itself as anchor ({self.anchor!r}); an anchor is what it becomes"
            )


@dataclass(frozen=True)
class Request:
    """Concepts that are erased together, prompts whose meaning stays, and the templates that carry both."""

    concepts: tuple[Concept, ...]
    keep: tuple[str, ...] = ()
    templates: tuple[str, ...] = ("{}",)

    def __post_init__(self) -> None:
        _set(self, "concepts", _concepts(self.concepts))
        _set(self, "keep", _distinct(_words(k, "keep") for k in _sequence(self.keep, "keep")))
        _set(self, "templates", tuple(map(_template, _sequence(self.templates, "templates"))))
        if not self.templates:
            raise BadConcept("A request needs at least one template, such as '{}'")
        self._check_distinct()

    def prompts(self, text: str) -> tuple[str, ...]:
        """The text in every template."""
        return tuple(template.replace("{}", text) for template in self.templates)

    def to_json(self) -> dict[str, Any]:
        return {
            "concepts": [concept.to_json() for concept in self.concepts],
            "keep": list(self.keep),
            "templates": list(self.templates),
        }

    @classmethod
    def from_json(cls, data: object) -> Request:
        """The request that `to_json` wrote; fields with a default may be left out."""
        values = _fields(cls, data, required="concepts")
        concepts = map(Concept.from_json, _sequence(values.pop("concepts"), "concepts"))
        return cls(tuple(concepts), **values)

    def _check_distinct(self) -> None:
        erased = [phrase for concept in self.concepts for phrase in concept.phrases]
        twice = _repeated(erased)
        if twice is not None:
            raise BadConcept(f"The request erases {twice!r} twice")
        kept = _repeated([*erased, *self.keep])
        if kept is not None:
            raise BadConcept(f"The request erases {kept!r} and keeps it")


def same(text: str) -> str:
    """The form in which two phrases are compared: neither case nor spacing counts."""
    return " ".join(text.split()).casefold()


def _set(instance: object, name: str, value: object) -> None:
    object.__setattr__(instance, name, value)


def _words(text: object, what: str) -> str:
    if not isinstance(text, str):
        raise BadConcept(f"{what} must be text, not {text!r}")
    words = " ".join(text.split())
    for character in words:
        if (fault := _UNPRINTABLE.get(unicodedata.category(character))) is not None:
            raise BadConcept(f"{what} holds {fault}: {text!r}")
    return words


def _filled(text: object, what: str) -> str:
    words = _words(text, what)
    if not words:
        raise BadConcept(f"{what} must not be empty")
    return words


def _template(text: object) -> str:
    template = _words(text, "A template")
    if template.count("{}") != 1:
        raise BadConcept(f"Template {template!r} must hold {{}} exactly once, where the concept goes")
    return template


def _concepts(given: object) -> tuple[Concept, ...]:
    if isinstance(given, Concept):
        raise BadConcept(f"concepts must be a sequence; put concept {given.text!r} in a tuple")
    concepts = tuple(_sequence(given, "concepts"))
    for concept in concepts:
        if not isinstance(concept, Concept):
            raise BadConcept(f"concepts must hold Concept objects, not {concept!r}")
    if not concepts:
        raise BadConcept("A request needs at least one concept")
    return concepts


def _sequence(given: object, what: str) -> Sequence[Any]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise BadConcept(f"{what} must be a sequence of texts, not {given!r}")
    return tuple(given)


def _distinct(texts: Iterable[str]) -> tuple[str, ...]:
    distinct: dict[str, str] = {}
    for text in texts:
        distinct.setdefault(same(text), text)
    return tuple(distinct.values())


def _repeated(texts: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for text in texts:
        if same(text) in seen:
            return text
        seen.add(same(text))
    return None


def _fields(cls: type[Concept] | type[Request], data: object, required: str) -> dict[str, Any]:
    name, known = cls.__name__.lower(), [field.name for field in fields(cls)]
    if not isinstance(data, Mapping):
        raise BadConcept(f"A {name} in JSON is an object with {', '.join(known)}, not {data!r}")
    for key in data:
        if key not in known:
            raise BadConcept(f"A {name} has no field {key!r}; it has: {', '.join(known)}")
    if required not in data:
        raise BadConcept(f"A {name} in JSON needs the field {required!r}")
    return dict(data)
