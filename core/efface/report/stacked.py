"""Everything that a demonstration of several erasures on one pipeline found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from efface.concept import Concept
from efface.evaluation.interaction import Matrix, matrix
from efface.evaluation.scores import Estimate, Evaluation, Scores
from efface.planning import Plan
from efface.report.budget import Budget
from efface.report.change import mean
from efface.report.imprint import Detached
from efface.report.prompt import Prompt
from efface.report.sampling import Sampling
from efface.report.subject import Subject

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_SHOWN = 0.08
MOST_LOST = 0.04


def most_shown(found: Evaluation | None) -> float | None:
    """The largest share of pictures of an erased concept that still show it."""
    shown = [one.efficacy.value for one in found.concepts.values() if one.efficacy] if found else []
    return max(shown, default=None)


def lost(found: Evaluation | None) -> Estimate | None:
    """What all other concepts lost to the stack: the same for each of the erased ones."""
    return next((one.specificity_drop for one in found.concepts.values()), None) if found else None


@dataclass(frozen=True)
class Part:
    """One erasure of the stack: which method erased which concept, from a fit of some seconds or from a file."""

    label: str
    method: str
    distribution: str
    version: str
    concept: Concept
    sha256: str
    size: int
    seconds: float = 0.0
    file: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "label": self.label,
            "method": self.method,
            "distribution": self.distribution,
            "version": self.version,
            "concept": self.concept.to_json(),
            "artifact": {"sha256": self.sha256, "bytes": self.size},
            "fit_seconds": None if self.file else self.seconds,
            "file": self.file or None,
        }


@dataclass(frozen=True)
class Order:
    """The same erasures attached in another order.

    `identical`: whether latents are bit for bit those of the first order, at every prompt that is shown. Where they
    are not, and something can tell what pictures show, `evaluation` has the figures of this order.
    """

    labels: tuple[str, ...]
    identical: bool
    evaluation: Evaluation | None = None

    @property
    def most_shown(self) -> float | None:
        return most_shown(self.evaluation)

    @property
    def lost(self) -> Estimate | None:
        return lost(self.evaluation)

    def to_json(self) -> dict[str, Any]:
        found = self.evaluation
        return {
            "labels": list(self.labels),
            "latents_identical": self.identical,
            "concepts": {name: one.to_json() for name, one in found.concepts.items()} if found else None,
        }


@dataclass(frozen=True)
class Removal:
    """An erasure taken off, what was left on, and whether latents are then those of the rest attached by itself."""

    label: str
    left: tuple[str, ...]
    identical: bool

    def to_json(self) -> dict[str, Any]:
        return {"label": self.label, "left": list(self.left), "latents_identical": self.identical}


@dataclass(frozen=True)
class Stacked:
    """Several concepts, a method for each, one pipeline: the plan, pictures before and after, figures, orders, undoing.

    `prompts` of the sampling begin with one for each part, in order; the others are for things that should stay.
    `missing` says of methods, or of concepts, why they have no part. `evaluation` is None where `unmeasured` says why.
    """

    subject: Subject
    sampling: Sampling
    parts: tuple[Part, ...]
    missing: Mapping[str, str]
    plan: Plan
    base: tuple[Image, ...]
    images: tuple[Image, ...]
    changes: tuple[float, ...]
    evaluation: Evaluation | None
    unmeasured: str
    orders: tuple[Order, ...]
    removals: tuple[Removal, ...]
    detached: Detached
    seconds: dict[str, float]
    environment: dict[str, str]
    budget: Budget
    failures: Mapping[str, str] = field(default_factory=dict)

    @property
    def sound(self) -> bool:
        """Whether every fit went through, and everything came off without a trace."""
        return not self.failures and self.detached.identical and all(one.identical for one in self.removals)

    @property
    def matrix(self) -> Matrix | None:
        return matrix(self.evaluation) if self.evaluation else None

    def becomes(self, prompt: Prompt) -> Concept | None:
        """The erased concept that a prompt of the page asks for, if it is one of the parts'."""
        asked = dict(zip(self.sampling.prompts, self.parts, strict=False))
        return asked[prompt].concept if prompt in asked else None

    def scores(self, part: Part) -> tuple[Scores | None, Scores | None]:
        """The figures of a part's concept with the erasure alone, and in the stack."""
        if self.evaluation is None:
            return None, None
        alone = {one.label: one.concepts for one in self.evaluation.alone}.get(part.label, {})
        return alone.get(part.concept.text), self.evaluation.concepts.get(part.concept.text)

    def own(self, concept: str, label: str) -> bool:
        """Whether an erasure is meant for a concept."""
        return any((part.concept.text, part.label) == (concept, label) for part in self.parts)

    @property
    def methods(self) -> list[str]:
        return list(dict.fromkeys(part.method for part in self.parts))

    @property
    def most_shown(self) -> float | None:
        return most_shown(self.evaluation)

    @property
    def lost(self) -> Estimate | None:
        return lost(self.evaluation)

    def mean_changes(self) -> list[float]:
        """The mean change per prompt, over its seeds."""
        return [mean(row) for row in self.sampling.by_prompt(self.changes)]

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.subject.to_json(),
            "sampling": self.sampling.to_json() | {"size": list(self.base[0].size)},
            "parts": [part.to_json() for part in self.parts],
            "missing": dict(self.missing),
            "failures": dict(self.failures),
            "plan": self.plan.to_json(),
            "mean_absolute_pixel_change": [
                {"prompt": prompt.text, "mean": change}
                for prompt, change in zip(self.sampling.prompts, self.mean_changes(), strict=True)
            ],
            "figures": self.evaluation.to_json() if self.evaluation else {"missing": self.unmeasured},
            "orders": [order.to_json() for order in self.orders],
            "removals": [removal.to_json() for removal in self.removals],
            "detached": self.detached.to_json(),
            "budget": {"seconds": self.budget.seconds, "refit": self.budget.refit},
            "seconds": dict(self.seconds),
            "environment": dict(self.environment),
        }
