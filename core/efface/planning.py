"""What a stack of erasures will touch, said before anything is attached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from efface.fingerprint import Likeness
from efface.method import Method, covers
from efface_hooks import Patch


@dataclass(frozen=True)
class PlannedErasure:
    """One erasure of a plan: edits per kind of point, what goes around it, whether and how far its base is another."""

    label: str
    scale: float
    points: tuple[str, ...]
    kinds: Mapping[str, int]
    bypassed_by: tuple[str, ...]
    base_difference: float
    other_base: bool


@dataclass(frozen=True)
class Plan:
    """All erasures in order, and the points where several of them meet."""

    erasures: tuple[PlannedErasure, ...]
    meetings: Mapping[str, tuple[str, ...]]

    def to_json(self) -> dict[str, Any]:
        return {
            "erasures": [
                {
                    "label": one.label,
                    "scale": one.scale,
                    "points": list(one.points),
                    "kinds": dict(one.kinds),
                    "bypassed_by": list(one.bypassed_by),
                    "base_difference": one.base_difference,
                    "other_base": one.other_base,
                }
                for one in self.erasures
            ],
            "meetings": {point: list(labels) for point, labels in self.meetings.items()},
        }

    def __str__(self) -> str:
        lines = [_line(position, one) for position, one in enumerate(self.erasures, 1)]
        lines += [f"meet at {point}: {', '.join(labels)}" for point, labels in self.meetings.items()]
        return "\n".join(lines) or "nothing attached"


def planned(
    patches: Sequence[tuple[str, float, Patch]],
    methods: Mapping[str, type[Method]],
    likenesses: Mapping[str, Likeness],
) -> Plan:
    """The plan for (label, scale, patch) in order."""
    erasures = tuple(
        _erasure(label, scale, patch, methods[label], likenesses[label]) for label, scale, patch in patches
    )
    at: dict[str, list[str]] = {}
    for one in erasures:
        for point in one.points:
            at.setdefault(point, []).append(one.label)
    return Plan(erasures, {point: tuple(labels) for point, labels in at.items() if len(labels) > 1})


def _erasure(label: str, scale: float, patch: Patch, method: type[Method], likeness: Likeness) -> PlannedErasure:
    points = {edit.point.name: edit.point.kind for edit in patch.edits}
    kinds = {kind: list(points.values()).count(kind) for kind in dict.fromkeys(points.values())}
    declared = covers(method)
    return PlannedErasure(
        label=label,
        scale=scale,
        points=tuple(points),
        kinds=kinds,
        bypassed_by=() if declared is None else declared.bypassed_by,
        base_difference=likeness.difference,
        other_base=not likeness.same,
    )


def _line(position: int, one: PlannedErasure) -> str:
    touched = ", ".join(f"{count} {kind}" for kind, count in one.kinds.items())
    state = "off" if one.scale == 0 else f"scale {one.scale:g}"
    around = f"; bypassed by {', '.join(one.bypassed_by)}" if one.bypassed_by else ""
    base = f"; another base (differs by {one.base_difference:.2g})" if one.other_base else ""
    return f"{position}. {one.label} ({state}): {touched}{around}{base}"
