"""From erasures and their patches to a plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from efface.erasure import Erasure
from efface.fingerprint import Likeness
from efface.method import Fitted, Method, covers, step_flops
from efface.planning.flops import positions, unet_flops
from efface.planning.plan import Plan, PlannedErasure
from efface.planning.reach import added_flops, modules, weights
from efface_hooks import HookPoint, Patch
from efface_hooks.patch import Edit
from efface_hooks.point import component


@dataclass(frozen=True)
class Candidate:
    """One erasure as it is, or would be, in an editor's list; `scale` is 0 when it is off."""

    label: str
    scale: float
    erasure: Erasure
    method: Method
    patch: Patch
    likeness: Likeness

    @property
    def acts(self) -> bool:
        return self.scale > 0

    @property
    def edits(self) -> list[Edit]:
        return self.patch.edits

    @property
    def points(self) -> dict[str, HookPoint]:
        return {edit.point.name: edit.point for edit in self.edits}


def planned(pipe: Any, candidates: Sequence[Candidate], allow: frozenset[str], allow_other_base: bool) -> Plan:
    """The plan for candidates in order; `allow` is what the editor lets pass."""
    from efface.planning.findings import findings

    unet, tokens = component(pipe, "unet"), int(pipe.tokenizer.model_max_length)
    at = positions(unet, tokens)
    return Plan(
        erasures=tuple(_planned(pipe, one, at, tokens) for one in candidates),
        meetings=meetings(candidates),
        findings=tuple(findings(pipe, candidates, allow, allow_other_base)),
        unet_flops=unet_flops(unet, tokens),
    )


def meetings(candidates: Sequence[Candidate]) -> Mapping[str, tuple[str, ...]]:
    """The points that several erasures edit, with their labels."""
    at: dict[str, list[str]] = {}
    for one in candidates:
        for point in one.points:
            at.setdefault(point, []).append(one.label)
    return {point: tuple(labels) for point, labels in at.items() if len(labels) > 1}


def _planned(pipe: Any, one: Candidate, at: Mapping[str, int], tokens: int) -> PlannedErasure:
    declared = covers(type(one.method))
    return PlannedErasure(
        label=one.label,
        method=one.erasure.method,
        scale=one.scale,
        points=tuple(one.points),
        kinds=dict(Counter(point.kind for point in one.points.values())),
        modules=len({name for edit in one.edits for name in modules(pipe, edit)}),
        parameters=weights(pipe, one.edits),
        bypassed_by=() if declared is None else declared.bypassed_by,
        base_difference=one.likeness.difference,
        other_base=not one.likeness.same,
        flops=_flops(one, at, tokens) if one.acts else 0.0,
    )


def _flops(one: Candidate, at: Mapping[str, int], tokens: int) -> float | None:
    """The work of maps and adds, and what the method says of its tensor edits."""
    each = [added_flops(edit, at, tokens) for edit in one.edits]
    linear = sum(found for found in each if found is not None)
    if None not in each:
        return linear
    own = step_flops(one.method, Fitted(one.erasure.fit, one.erasure.request, one.scale), at)
    return None if own is None else linear + own
