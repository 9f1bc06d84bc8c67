"""A plan: every erasure in order, where several of them meet, what there is to say about it, what it costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from efface.wording import count, counted

Level = Literal["note", "warning", "refusal"]


@dataclass(frozen=True)
class Finding:
    """Something to know about a stack.

    A refusal keeps an erasure from being attached, a warning is a reason to look again, a note is neither. `about`
    is one word for programs, `labels` are the erasures concerned, `text` is for people.
    """

    level: Level
    about: str
    labels: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class PlannedErasure:
    """One erasure of a plan.

    `points` with the number of each kind; `modules`: how many modules of the model compute otherwise, `parameters`:
    how many of their weights its maps and adds change in effect; what it says goes around it; whether and how far its
    base is another; `flops`: operations that it adds to one denoising call for one picture, an estimate from shapes,
    0 when it is off and None where its tensor edits do not say.
    """

    label: str
    method: str
    scale: float
    points: tuple[str, ...]
    kinds: Mapping[str, int]
    modules: int
    parameters: int
    bypassed_by: tuple[str, ...]
    base_difference: float
    other_base: bool
    flops: float | None


@dataclass(frozen=True)
class Plan:
    """All erasures in order, the points where several of them meet, and what there is to know.

    `unet_flops`: operations of one denoising call of the U-Net for one picture, estimated from its shapes.
    """

    erasures: tuple[PlannedErasure, ...]
    meetings: Mapping[str, tuple[str, ...]]
    findings: tuple[Finding, ...] = ()
    unet_flops: float = 0.0

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings that a strict check does not let pass: warnings and refusals."""
        return tuple(finding for finding in self.findings if finding.level != "note")

    @property
    def refusals(self) -> tuple[Finding, ...]:
        """What attaching would refuse."""
        return tuple(finding for finding in self.findings if finding.level == "refusal")

    @property
    def cost(self) -> float | None:
        """What the erasures add to a denoising call, as a share of the U-Net's own work; None where not all say."""
        if any(one.flops is None for one in self.erasures):
            return None
        return sum(one.flops or 0.0 for one in self.erasures) / (self.unet_flops or 1.0)

    @property
    def met(self) -> list[str]:
        """Where erasures meet, in a line for all points where the same ones do."""
        return list(_met(self.meetings))

    def to_json(self) -> dict[str, Any]:
        return {
            "erasures": [
                asdict(one) | {name: list(getattr(one, name)) for name in ("points", "bypassed_by")}
                for one in self.erasures
            ],
            "meetings": {point: list(labels) for point, labels in self.meetings.items()},
            "findings": [asdict(finding) | {"labels": list(finding.labels)} for finding in self.findings],
            "unet_flops": self.unet_flops,
            "cost": self.cost,
        }

    def __str__(self) -> str:
        return "\n".join(self.lines()) or "nothing attached"

    def lines(self) -> Iterator[str]:
        """The plan as people read it."""
        yield from (_line(position, one) for position, one in enumerate(self.erasures, 1))
        yield from self.met
        if self.erasures:
            yield self._work()
        yield from (f"{finding.level}: {finding.text}" for finding in self.findings)

    def _work(self) -> str:
        """The estimate in a line; of a stack that does not say all, what is known."""
        shares = [f"{one.label} {_share(one.flops, self.unet_flops)}" for one in self.erasures]
        total = _share(None if self.cost is None else self.cost * self.unet_flops, self.unet_flops)
        unet = f"{count(round(self.unet_flops))} operations of the U-Net"
        return f"work per denoising call, estimated from shapes: {total} on top of {unet} ({', '.join(shares)})"


def _line(position: int, one: PlannedErasure) -> str:
    state = "off" if one.scale == 0 else f"scale {one.scale:g}"
    touched = ", ".join(f"{number} {kind}" for kind, number in one.kinds.items())
    reach = [counted(one.modules, "module")] * (one.modules not in (0, len(one.points)) or bool(one.parameters))
    reach += [f"{count(one.parameters)} weights"] * bool(one.parameters)
    within = f" ({', '.join(reach)})" if reach else ""
    around = f"; bypassed by {', '.join(one.bypassed_by)}" if one.bypassed_by else ""
    return f"{position}. {one.label} ({state}): {touched}{within}{around}"


def _met(meetings: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    """One line for all points where the same erasures meet."""
    places: dict[tuple[str, ...], list[str]] = {}
    for point, labels in meetings.items():
        places.setdefault(labels, []).append(point)
    for labels, points in places.items():
        where = points[0] if len(points) == 1 else f"{len(points)} points ({points[0]} and so on)"
        yield f"meet at {where}: {', '.join(labels)}"


def _share(flops: float | None, whole: float) -> str:
    if flops is None:
        return "not known"
    share = flops / (whole or 1.0)
    return f"{share:.2%}" if share >= 0.0001 or not share else "under 0.01%"
