"""Several erasures of one method as one: solved again from what each was solved from, or merged as they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

from efface.concept import Concept, Request, same
from efface.erasure import Erasure
from efface.errors import BadConcept, BadSetting, EffaceError, PluginError, WrongBase, unknown
from efface.fingerprint import compare
from efface.method import Composable, Fit, Fitted, Mergeable, Method, composes, merges
from efface.registry import Registry
from efface.settings import as_dict, build

SHORTEST_ID = 8
Part = dict[str, Any]
"""An erasure that another one was composed of: its `sha256` and `concepts`; where merged its `keep` and `seed`."""


def compose(*erasures: Erasure, remove: Sequence[str] = (), registry: Registry | None = None) -> Erasure:
    """One erasure of all concepts of these; without the model.

    A method that can solve its fits again gives what fitting all concepts at once would have given; it keeps what any
    of the erasures keeps, less what one of them erases. The report says under "composition" what is left of each
    concept when the erasures are put side by side, and by the joint solution. A method that keeps concepts apart
    merges: each concept is as it was fitted, and the report has no "composition".

    `remove` takes concepts out again, by their text or by the sha256 (or its first 8 digits or more) of an erasure that
    was composed.

    Raises EffaceError for methods that can do neither, BadSetting for other settings or templates, WrongBase for
    another model, BadConcept for a concept that is erased twice or not there to remove.
    """
    registry = registry or Registry.installed()
    if len(erasures) + bool(remove) < 2:
        raise EffaceError("Give several erasures to compose, or one and what to remove from it")
    method = _method(erasures, registry)
    _check_alike(erasures, method)
    parts = _left(erasures, _removed(erasures, remove), method)
    request, dropped = _request(erasures, parts, method)
    fit = _fit(method, erasures, request)
    first = erasures[0].header
    return Erasure.of(
        method,
        Fit(fit.tensors, fit.facts, fit.report | _report(erasures, parts, request, dropped)),
        request,
        origin=registry.origin(type(method)),
        base=first.base,
        points=first.points,
        seed=parts[0].get("seed", first.seed),
    )


def _method(erasures: Sequence[Erasure], registry: Registry) -> Method:
    """The one method of all, with its settings."""
    each: list[Method] = [build(registry.method_of(one.header), one.header.settings) for one in erasures]
    for erasure, method in zip(erasures, each, strict=True):
        if not _can(type(method)):
            able = ", ".join(name for name, cls in registry.methods().items() if _can(cls)) or "none"
            raise EffaceError(f"{erasure!r} can be neither solved again nor merged; methods that can: {able}")
        if type(method) is not type(each[0]):
            raise EffaceError(f"Only erasures of one method can become one: {erasures[0]!r} and {erasure!r} are not")
        other, own = as_dict(each[0]), as_dict(method)
        if other != own:
            differ = ", ".join(f"{name} {other[name]!r} and {own[name]!r}" for name in own if own[name] != other[name])
            pair = f"{erasures[0]!r} and {erasure!r}"
            raise BadSetting(f"{pair} have other settings: {differ}{_instead(method)}")
    return each[0]


def _can(method_class: type[Method]) -> bool:
    return composes(method_class) or merges(method_class)


def _instead(method: Method) -> str:
    """What to do with erasures that cannot be merged; side by side is not what solving as one gives."""
    return "" if composes(type(method)) else "; attach both files instead"


def _check_alike(erasures: Sequence[Erasure], method: Method) -> None:
    first = erasures[0]
    for other in erasures[1:]:
        if other.request.templates != first.request.templates:
            raise BadSetting(f"{first!r} and {other!r} were fitted with other templates{_instead(method)}")
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


def _left(erasures: Sequence[Erasure], gone: set[str], method: Method) -> list[Part]:
    """What the erasures were composed of, less the concepts that are gone."""
    each = (part for one in erasures for part in _parts(one, apart=not composes(type(method))))
    left = [part | {"concepts": [text for text in part["concepts"] if same(text) not in gone]} for part in each]
    found = [part for part in left if part["concepts"]]
    if not found:
        raise BadConcept("Nothing is left when all concepts are removed; take the erasure off instead")
    return found


def _parts(erasure: Erasure, apart: bool = False) -> Iterator[Part]:
    """The erasures that one was composed of, itself where it was fitted; `apart` with what was each one's own."""
    own: Part = {"sha256": erasure.digest, "concepts": [concept.text for concept in erasure.concepts]}
    if apart:
        own |= {"keep": list(erasure.request.keep), "seed": erasure.header.seed}
    yield from erasure.header.report.get("composed") or [own]


def _request(erasures: Sequence[Erasure], parts: Sequence[Part], method: Method) -> tuple[Request, list[str]]:
    """Every concept that is left, what is kept and erased by none, and what is kept no longer.

    Solved again, all is kept that some erasure keeps; merged, all that something that is left was fitted to keep.
    """
    left = {text for part in parts for text in part["concepts"]}
    concepts = tuple(one for erasure in erasures for one in erasure.concepts if one.text in left)
    apart = not composes(type(method))
    each = [part["keep"] for part in parts] if apart else [erasure.request.keep for erasure in erasures]
    keep, erased = [prompt for prompts in each for prompt in prompts], _erased(concepts)
    kept = tuple(prompt for prompt in keep if same(prompt) not in erased)
    dropped = [prompt for prompt in keep if same(prompt) in erased]
    return Request(concepts, kept, erasures[0].request.templates), list(dict.fromkeys(dropped))


def _erased(concepts: Iterable[Concept]) -> set[str]:
    return {same(phrase) for concept in concepts for phrase in concept.phrases}


def _fit(method: Method, erasures: Sequence[Erasure], request: Request) -> Fit:
    fits = [Fitted(one.fit, one.request) for one in erasures]
    if composes(type(method)):
        found = cast(Composable, method).compose(fits, request)
        _check_fit(method, "compose", found)
        if set(found.report.get("composition", ())) != {concept.text for concept in request.concepts}:
            raise PluginError(f"Method {method.name!r} must report the composition of every concept from compose")
        return found
    left = set(request.concepts)
    found = cast(Mergeable, method).merge([one for one in fits if left & set(one.request.concepts)], request)
    _check_fit(method, "merge", found)
    return found


def _check_fit(method: Method, verb: str, fit: object) -> None:
    if not isinstance(fit, Fit):
        raise PluginError(f"Method {method.name!r} must return an efface.Fit from {verb}, not {fit!r}")


def _report(
    erasures: Sequence[Erasure], parts: Sequence[Part], request: Request, dropped: Sequence[str]
) -> dict[str, Any]:
    """Where the concepts come from, which of them lacked an anchor, and what is kept no longer."""
    left = {concept.text for concept in request.concepts}
    neutral = [text for one in erasures for text in one.header.report.get("neutral anchor") or () if text in left]
    return {"composed": list(parts), "no longer kept": list(dropped)} | ({"neutral anchor": neutral} if neutral else {})
