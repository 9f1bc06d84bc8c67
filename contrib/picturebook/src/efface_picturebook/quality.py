"""What was measured of base model and detector: rates with intervals, against targets, as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from efface.evaluation.scores import Estimate

Rates = Mapping[str, Estimate | None]
"""Shares of pictures by name; None where there was no picture."""


@dataclass(frozen=True)
class Sharpness:
    """How the detector does on held-out renders: per object, and of all together; IoU is a mean."""

    recall: Rates
    false_positives: Rates
    iou: Mapping[str, float | None]
    all_recall: Estimate | None
    all_false_positives: Estimate | None
    all_iou: float | None
    style: Estimate | None
    invented: Estimate | None


@dataclass(frozen=True)
class Quality:
    """How often the detector finds what a prompt named; `both` and `either` of two-object scenes."""

    seeds: int
    objects: Rates
    styles: Rates
    persons: Rates
    both: Estimate | None
    either: Estimate | None
    renders: Sharpness
    detector: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"targets": {target.what: target.met for target in targets(self)}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Quality:
        """What `to_json` wrote."""
        renders = data["renders"]
        return cls(
            seeds=data["seeds"],
            objects=_rates(data["objects"]),
            styles=_rates(data["styles"]),
            persons=_rates(data["persons"]),
            both=_rate(data["both"]),
            either=_rate(data["either"]),
            renders=Sharpness(
                recall=_rates(renders["recall"]),
                false_positives=_rates(renders["false_positives"]),
                iou=renders["iou"],
                all_recall=_rate(renders["all_recall"]),
                all_false_positives=_rate(renders["all_false_positives"]),
                all_iou=renders["all_iou"],
                style=_rate(renders["style"]),
                invented=_rate(renders["invented"]),
            ),
            detector=data["detector"],
        )


@dataclass(frozen=True)
class Target:
    """Something that was aimed at."""

    what: str
    met: bool
    reached: str


def targets(quality: Quality) -> tuple[Target, ...]:
    """What was aimed at, and whether it was reached."""
    good = sum(_reached(one) >= 0.9 for one in quality.objects.values())
    styles = sum(_reached(one) >= 0.9 for one in quality.styles.values())
    worst = max(_reached(one) for one in quality.renders.false_positives.values())
    return (
        Target("at least 9 of 12 objects in 90 % of their pictures", good >= 9, f"{good} of {len(quality.objects)}"),
        Target(
            "both objects in 70 % of two-object scenes",
            _reached(quality.both) >= 0.7,
            f"{100 * _reached(quality.both):.1f} %",
        ),
        Target("at least 3 of 4 styles in 90 % of their pictures", styles >= 3, f"{styles} of {len(quality.styles)}"),
        Target("false positives on held-out renders at most 2 %, each", worst <= 0.02, f"at most {100 * worst:.1f} %"),
    )


def table(quality: Quality) -> str:
    """Everything in Markdown."""
    return "\n".join(_lines(quality))


def _lines(quality: Quality) -> Iterator[str]:
    yield "| prompted for | found by the detector |"
    yield "|---|---|"
    for name, one in (*quality.objects.items(), *quality.styles.items(), *quality.persons.items()):
        yield f"| {name} | {said(one)} |"
    yield f"| two objects: both | {said(quality.both)} |"
    yield f"| two objects: at least one | {said(quality.either)} |"
    yield ""
    yield from _detector_lines(quality.renders)
    yield ""
    yield "| target | reached | met |"
    yield "|---|---|---|"
    for target in targets(quality):
        yield f"| {target.what} | {target.reached} | {'yes' if target.met else 'no'} |"


def _detector_lines(renders: Sharpness) -> Iterator[str]:
    yield "| on held-out renders | recall | false positives | IoU of the region |"
    yield "|---|---|---|---|"
    for name, recall in renders.recall.items():
        yield f"| {name} | {said(recall)} | {said(renders.false_positives[name])} | {_overlap(renders.iou.get(name))} |"
    rates = f"{said(renders.all_recall)} | {said(renders.all_false_positives)}"
    yield f"| all objects | {rates} | {_overlap(renders.all_iou)} |"
    yield f"| style, of five | {said(renders.style)} | | |"
    yield f"| anything in pictures of nothing | | {said(renders.invented)} | |"


def said(share: Estimate | None) -> str:
    """A share with its interval in per cent."""
    if share is None:
        return "no pictures"
    return f"{100 * share.value:.1f} % ({100 * share.low:.1f} to {100 * share.high:.1f}, n = {share.n:,})"


def _overlap(iou: float | None) -> str:
    return "" if iou is None else f"{iou:.2f}"


def _reached(share: Estimate | None) -> float:
    return 0.0 if share is None else share.value


def _rate(data: Mapping[str, Any] | None) -> Estimate | None:
    return None if data is None else Estimate(**data)


def _rates(data: Mapping[str, Any]) -> dict[str, Estimate | None]:
    return {name: _rate(one) for name, one in data.items()}
