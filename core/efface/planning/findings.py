"""What there is to know about a stack of erasures on a pipeline, each as one finding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

from torch import nn

from efface.concept import same
from efface.method import composes, covers, stacks
from efface.planning.around import pooled_goes_around, unedited_encoders
from efface.planning.plan import Finding
from efface.wording import counted
from efface_hooks import HookPoint
from efface_hooks.guard import PROMPT_EMBEDS
from efface_hooks.point import TEXT_ENCODERS, component

if TYPE_CHECKING:
    from efface.planning.planned import Candidate

IMAGE_PROMPTS = "image prompts"
LAST = 10**9


def findings(
    pipe: Any, candidates: Sequence[Candidate], allow: frozenset[str], allow_other_base: bool
) -> Iterator[Finding]:
    """All findings about the candidates in order; the ones that are off are looked at for their base alone."""
    for one in candidates:
        yield from _base(one, allow_other_base)
    acting = [one for one in candidates if one.acts]
    yield from _adapters(pipe, acting)
    for one in acting:
        yield from _stack(one, acting)
        yield from _bypasses(pipe, one, allow)
    for first, second in combinations(acting, 2):
        yield from _repeated(first, second)
    for one in acting:
        yield from _anchors(one, acting)
    yield from _order(acting)
    yield from _together(acting)


def _base(one: Candidate, allowed: bool) -> Iterator[Finding]:
    likeness = one.likeness
    if not likeness.same:
        text = f"{one.label} was fitted on another base (differs by {likeness.difference:.2g}"
        text += f", allowed {likeness.allowed:g})" + (
            "" if allowed else ": attaching refuses it unless told to allow it"
        )
        yield Finding("warning" if allowed else "refusal", "base", (one.label,), text)


def _adapters(pipe: Any, acting: Sequence[Candidate]) -> Iterator[Finding]:
    """Fingerprints leave adapters out, so nobody has compared the ones there are now with those of the fit."""
    roots = [
        component(pipe, name) for name in ("unet", *TEXT_ENCODERS) if isinstance(getattr(pipe, name, None), nn.Module)
    ]
    adapted = sum(hasattr(module, "base_layer") for root in roots for module in root.modules())
    if adapted and acting:
        text = f"adapters (LoRA) are on {counted(adapted, 'layer')}; whether the fits knew them is not recorded"
        yield Finding("warning", "stack", tuple(one.label for one in acting), text)


def _stack(one: Candidate, acting: Sequence[Candidate]) -> Iterator[Finding]:
    """Every erasure is fitted on the base alone, so what others change before it is new to it."""
    last = max((_order_of(point) for point in one.points.values()), default=0)
    others = [other for other in acting if other is not one]
    encoders = [other.label for other in others if _first(other, True) < last]
    features = [other.label for other in others if other.label not in encoders and _first(other, False) < last]
    if encoders:
        text = f"{one.label} was fitted without what {', '.join(encoders)} changes in a text encoder before it"
        yield Finding("warning", "stack", (one.label, *encoders), text)
    if features:
        text = f"{one.label} was fitted without what {', '.join(features)} changes before it"
        yield Finding("note", "stack", (one.label, *features), text)


def _first(one: Candidate, in_encoder: bool) -> int:
    """The place in forward order where an erasure first acts, in a text encoder or in the U-Net."""
    points = [point for point in one.points.values() if (point.component in TEXT_ENCODERS) is in_encoder]
    return min((_order_of(point) for point in points if point.kind != "step"), default=LAST)


def _order_of(point: HookPoint) -> int:
    """The place in forward order; a module that is no listed point counts as its component's last."""
    if point.order >= 0:
        return point.order
    return 0 if point.component in TEXT_ENCODERS else LAST


def _bypasses(pipe: Any, one: Candidate, allow: frozenset[str]) -> Iterator[Finding]:
    """Ways around an erasure that are open on this pipeline; those that are not yet are on its line of the plan."""
    labels, declared = (one.label,), covers(type(one.method))
    if declared is None:
        yield Finding("note", "bypass", labels, f"{one.label}: its method does not say what goes around it")
    elif (
        IMAGE_PROMPTS in declared.bypassed_by and getattr(component(pipe, "unet"), "encoder_hid_proj", None) is not None
    ):
        yield Finding("warning", "bypass", labels, f"image prompts go around {one.label}, and the U-Net takes some in")
    encoders = {point.component for point in one.points.values() if point.component in TEXT_ENCODERS}
    if encoders and PROMPT_EMBEDS in allow:
        text = f"precomputed embeddings go around {one.label}, which edits a text encoder, and they are allowed"
        yield Finding("warning", "bypass", labels, text)
    there = [name for name in TEXT_ENCODERS if isinstance(getattr(pipe, name, None), nn.Module)]
    unedited = unedited_encoders(one.points, there)
    if unedited:
        text = f"{one.label} does not edit {', '.join(unedited)}, which reads prompts as well"
        yield Finding("warning", "bypass", labels, text)
    if pooled_goes_around(one.points, there) and _reads_pooled(pipe):
        text = f"the pooled embedding of {TEXT_ENCODERS[1]} reaches the U-Net around {one.label}"
        yield Finding("warning", "bypass", labels, text)


def _reads_pooled(pipe: Any) -> bool:
    return getattr(component(pipe, "unet").config, "addition_embed_type", None) in ("text", "text_time")


def _repeated(first: Candidate, second: Candidate) -> Iterator[Finding]:
    shared = _phrases(first) & _phrases(second)
    if not shared:
        return
    words, labels = ", ".join(map(repr, sorted(shared))), (first.label, second.label)
    summed = _linear(first) & _linear(second)
    if summed:
        text = f"{first.label} and {second.label} both erase {words} at {_where(summed)}: in sum they go too far"
        yield Finding("warning", "repeated", labels, text)
    else:
        yield Finding("note", "repeated", labels, f"{first.label} and {second.label} both erase {words}")


def _together(acting: Sequence[Candidate]) -> Iterator[Finding]:
    """Erasures of one method with equal settings: they may act as one, or could be solved again as one."""
    for group in _alike(acting):
        labels, method = tuple(one.label for one in group), type(group[0].method)
        if stacks(method):
            text = f"{_listed(labels)} act as one, at the place of {labels[0]}"
            yield Finding("note", "order", labels, text)
        shared = set.intersection(*(_linear(one) for one in group))
        if shared and composes(method):
            text = (
                f"{_listed(labels)} were solved apart and add up at {_where(shared)}; efface compose solves them as one"
            )
            yield Finding("note", "joint", labels, text)


def _alike(acting: Sequence[Candidate]) -> Iterator[list[Candidate]]:
    """Groups of several with one method and equal settings."""
    waiting = list(acting)
    while waiting:
        group = [one for one in waiting if one.method == waiting[0].method]
        waiting = [one for one in waiting if one not in group]
        if len(group) > 1:
            yield group


def _order(acting: Sequence[Candidate]) -> Iterator[Finding]:
    """Maps and adds commute; tensor edits at one point run one after the other, unless their method joins them."""
    at: dict[str, list[Candidate]] = {}
    for one in acting:
        for point in _edits(one):
            at.setdefault(point, []).append(one)
    groups: dict[tuple[str, ...], set[str]] = {}
    for point, meeting in at.items():
        if not all(stacks(type(one.method)) and one.method == meeting[0].method for one in meeting):
            groups.setdefault(tuple(one.label for one in meeting), set()).add(point)
    for labels, points in groups.items():
        if len(labels) > 1:
            text = f"{_listed(labels)} act one after the other at {_where(points)}: another order is another result"
            yield Finding("note", "order", labels, text)


def _anchors(one: Candidate, acting: Sequence[Candidate]) -> Iterator[Finding]:
    """Changes are computed from the unedited text, so an anchor that another one erases comes up all the same."""
    for concept in one.erasure.concepts:
        for other in acting:
            if concept.anchor and same(concept.anchor) in _phrases(other):
                text = f"{one.label} turns {concept.text!r} into {concept.anchor!r}, which {other.label} erases"
                yield Finding("warning", "anchor", tuple(dict.fromkeys((one.label, other.label))), text)


def _phrases(one: Candidate) -> set[str]:
    return {same(phrase) for concept in one.erasure.concepts for phrase in concept.phrases}


def _linear(one: Candidate) -> set[str]:
    return {edit.point.name for edit in one.edits if edit.verb in ("map", "add")}


def _edits(one: Candidate) -> set[str]:
    return {edit.point.name for edit in one.edits if edit.verb in ("input", "output")}


def _where(points: set[str]) -> str:
    return next(iter(points)) if len(points) == 1 else counted(len(points), "point")


def _listed(labels: Sequence[str]) -> str:
    return f"{', '.join(labels[:-1])} and {labels[-1]}"
