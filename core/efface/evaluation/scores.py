"""What an evaluation found for one erased concept."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval, from `n` pictures (or pairs of pictures, where before is set against after)."""

    value: float
    low: float
    high: float
    n: int

    def to_json(self) -> dict[str, float | int]:
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n}


@dataclass(frozen=True)
class Scores:
    """The figures of one erased concept; None where the model or the suite cannot give one.

    Rates and mean absolute changes are in 0..1. `efficacy`: share of pictures that still show the concept,
    `efficacy_base` before. `anchor`: share that shows the anchor. `generality`: share of pictures of held-out synonyms
    that show it, `generality_base` before. `specificity_drop`: base minus edited rate at the same seeds, over all other
    concepts; for the `specificity_worst` of them, and over those that no keep list names (`specificity_never_kept`).
    `locality_other`: share that shows the other object, of the two-object scenes whose base picture shows the erased
    concept; `locality_other_base` before. `locality_outside_mae`: change outside the erased object's region in the
    base picture, in scenes whose base picture shows both. `fidelity_mae`: change of unrelated prompts' pictures.
    `quality`: kernel distance of the concept's pictures to the base's pictures of the anchor, relative to that between
    two sets of the base's own.
    """

    efficacy: Estimate | None = None
    efficacy_base: Estimate | None = None
    anchor: Estimate | None = None
    generality: Estimate | None = None
    generality_base: Estimate | None = None
    specificity_drop: Estimate | None = None
    specificity_worst: Estimate | None = None
    specificity_never_kept: Estimate | None = None
    locality_other: Estimate | None = None
    locality_other_base: Estimate | None = None
    locality_outside_mae: Estimate | None = None
    fidelity_mae: Estimate | None = None
    quality: Estimate | None = None
    worst: str | None = None
    """The concept of `specificity_worst`."""

    def to_json(self) -> dict[str, Any]:
        estimates = {name: value for name, value in vars(self).items() if name != "worst"}
        found = {name: None if value is None else value.to_json() for name, value in estimates.items()}
        return found | {"specificity_worst_concept": self.worst}


FIGURES = tuple(field.name for field in fields(Scores) if field.name != "worst")


@dataclass(frozen=True)
class Alone:
    """What one erasure of several does when it is on by itself.

    `concepts`: the scores of the concepts that it erases; `shown`: the share of pictures of each concept that the
    stack erases which still show it; `lost`: base minus edited rate over all other concepts.
    """

    label: str
    concepts: dict[str, Scores]
    shown: dict[str, Estimate]
    lost: Estimate | None

    def to_json(self) -> dict[str, Any]:
        return {
            "label": self.label,
            "concepts": {name: scores.to_json() for name, scores in self.concepts.items()},
            "shown": {name: found.to_json() for name, found in self.shown.items()},
            "lost": None if self.lost is None else self.lost.to_json(),
        }


@dataclass(frozen=True)
class Evaluation:
    """The scores of every erased concept, of control rows where they were asked for, and how they were made.

    `controls` maps the name of a control to scores by concept; `alone` has every erasure of a stack by itself. `model`
    and `suite` identify both; `sampling` says how pictures were made; `quick` is true for fewer pictures than the full
    evaluation takes.
    """

    concepts: dict[str, Scores]
    controls: dict[str, dict[str, Scores]]
    seeds: tuple[int, ...]
    quick: bool
    sampling: dict[str, Any]
    model: dict[str, Any]
    suite: dict[str, Any]
    erasures: list[dict[str, Any]]
    alone: tuple[Alone, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "concepts": {name: scores.to_json() for name, scores in self.concepts.items()},
            "controls": {
                control: {name: scores.to_json() for name, scores in rows.items()}
                for control, rows in self.controls.items()
            },
            "seeds": list(self.seeds),
            "quick": self.quick,
            "sampling": self.sampling,
            "model": self.model,
            "suite": self.suite,
            "erasures": self.erasures,
            "alone": [one.to_json() for one in self.alone],
        }
