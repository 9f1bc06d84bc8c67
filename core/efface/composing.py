"""Several erasures of one method solved again as one, from what each of them was solved from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

from efface.concept import Concept, Request, same
from efface.erasure import Erasure
from efface.errors import BadConcept, BadSetting, EffaceError, PluginError, WrongBase, unknown
from efface.fingerprint import compare
from efface.method import Composable, Fit, Fitted, Method, composes
from efface.registry import Registry
from efface.settings import build

SHORTEST_ID = 8


def compose(*erasures: Erasure, remove: Sequence[str] = (), registry: Registry | None = None) -> Erasure:
    """One erasure of all concepts of these, as if they had been fitted at once; without the model.

    It keeps what any of them keeps, less what one of them erases. `remove` takes concepts out again, by their text or
    by the sha256 (or its first 8 digits or more) of an erasure that was composed. The report says under "composition"
    what is left of each concept when the erasures are put side by side, and by the joint solution.

    Raises EffaceError for methods that cannot do that, BadSetting for other settings or templates, WrongBase for
    another model, BadConcept for a concept that is erased twice or not there to remove.
    """
    registry = registry or Registry.installed()
    if len(erasures) + bool(remove) < 2:
        raise EffaceError("Give several erasures to compose, or one and what to remove from it")
    method = _method(erasures, registry)
    _check_alike(erasures)
    request = _request(erasures, _removed(erasures, remove))
    fit = method.compose([Fitted(one.fit, one.request) for one in erasures], request)
    _check_fit(method, fit, request)
    first = erasures[0].header
    return Erasure.of(
        method,
        Fit(fit.tensors, fit.facts, fit.report | _report(erasures, request)),
        request,
        origin=registry.origin(type(method)),
        base=first.base,
        points=first.points,
        seed=first.seed,
    )


def _method(erasures: Sequence[Erasure], registry: Registry) -> Composable:
    """The one method of all, with its settings."""
    each: list[Method] = [build(registry.method_of(one.header), one.header.settings) for one in erasures]
    for erasure, method in zip(erasures, each, strict=True):
        if not composes(type(method)):
            able = ", ".join(name for name, cls in registry.methods().items() if composes(cls)) or "none"
            raise EffaceError(f"{erasure!r} cannot be solved again; methods that can: {able}")
        if type(method) is not type(each[0]):
            raise EffaceError(
                f"Only erasures of one method can be solved as one: {erasures[0]!r} and {erasure!r} are not"
            )
        if method != each[0]:
            other, own = erasures[0].header.settings, erasure.header.settings
            differ = ", ".join(f"{name} {other[name]!r} and {own[name]!r}" for name in own if own[name] != other[name])
            raise BadSetting(f"{erasures[0]!r} and {erasure!r} have other settings: {differ}")
    return cast(Composable, each[0])


def _check_fit(method: Method, fit: object, request: Request) -> None:
    if not isinstance(fit, Fit):
        raise PluginError(f"Method {method.name!r} must return an efface.Fit from compose, not {fit!r}")
    if set(fit.report.get("composition", ())) != {concept.text for concept in request.concepts}:
        raise PluginError(f"Method {method.name!r} must report the composition of every concept from compose")


def _check_alike(erasures: Sequence[Erasure]) -> None:
    first = erasures[0]
    for other in erasures[1:]:
        if other.request.templates != first.request.templates:
            raise BadSetting(f"{first!r} and {other!r} were fitted with other templates")
        same_places = set(other.header.points) == set(first.header.points)
        if not same_places or not _same_base(first.header.base, other.header.base):
            raise WrongBase(f"{first!r} and {other!r} were fitted on different models")


def _same_base(one: dict[str, Any], other: dict[str, Any]) -> bool:
    try:
        return compare(one, other, allow_other=True).same
    except WrongBase:
        return False


def _removed(erasures: Sequence[Erasure], remove: Iterable[str]) -> set[str]:
    """The concepts that are meant, in the form in which they are compared."""
    texts = {same(concept.text): concept.text for one in erasures for concept in one.concepts}
    ids = {str(part["sha256"]): list(part["concepts"]) for one in erasures for part in _parts(one)}
    gone: set[str] = set()
    for what in remove:
        parts = [concepts for digest, concepts in ids.items() if len(what) >= SHORTEST_ID and digest.startswith(what)]
        if same(what) not in texts and not parts:
            raise BadConcept(unknown("concept", what, texts.values(), "erased here"))
        gone |= {same(text) for concepts in parts for text in concepts} or {same(what)}
    return gone


def _request(erasures: Sequence[Erasure], gone: set[str]) -> Request:
    """Every concept that is left and every prompt that some erasure keeps and none erases."""
    concepts = tuple(one for erasure in erasures for one in erasure.concepts if same(one.text) not in gone)
    if not concepts:
        raise BadConcept("Nothing is left when all concepts are removed; take the erasure off instead")
    keep = [prompt for erasure in erasures for prompt in erasure.request.keep]
    erased = _erased(concepts)
    return Request(
        concepts, tuple(prompt for prompt in keep if same(prompt) not in erased), erasures[0].request.templates
    )


def _erased(concepts: Iterable[Concept]) -> set[str]:
    return {same(phrase) for concept in concepts for phrase in concept.phrases}


def _report(erasures: Sequence[Erasure], request: Request) -> dict[str, Any]:
    """Where the concepts come from, which of them lacked an anchor, and what is kept no longer."""
    left = {concept.text for concept in request.concepts}
    parts = [
        part | {"concepts": [text for text in part["concepts"] if text in left]}
        for one in erasures
        for part in _parts(one)
    ]
    neutral = [text for one in erasures for text in one.header.report.get("neutral anchor") or () if text in left]
    kept = {same(prompt) for prompt in request.keep}
    dropped = [prompt for one in erasures for prompt in one.request.keep if same(prompt) not in kept]
    return {
        "composed": [part for part in parts if part["concepts"]],
        "no longer kept": list(dict.fromkeys(dropped)),
    } | ({"neutral anchor": neutral} if neutral else {})


def _parts(erasure: Erasure) -> Iterator[dict[str, Any]]:
    """The erasures that one was composed of, itself where it was fitted."""
    own = {"sha256": erasure.digest, "concepts": [concept.text for concept in erasure.concepts]}
    yield from erasure.header.report.get("composed") or [own]
