"""Everything that one demonstration found, as it was found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from efface.concept import Concept, Request
from efface.report.change import mean
from efface.report.imprint import Detached
from efface.report.sampling import Sampling
from efface.report.subject import Subject
from efface.report.touched import Touched

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Outcome:
    """What one method did: its erasure, what that touched, the pictures after and how much each one changed."""

    method: str
    about: str
    distribution: str
    version: str
    settings: dict[str, Any]
    report: dict[str, Any]
    sha256: str
    size: int
    touched: Touched
    images: tuple[Image, ...]
    changes: tuple[float, ...]
    seconds: dict[str, float]
    detached: Detached

    def to_json(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "distribution": self.distribution,
            "version": self.version,
            "error": None,
            "settings": self.settings,
            "report": self.report,
            "artifact": {"sha256": self.sha256, "bytes": self.size},
            "touched": self.touched.to_json(),
            "seconds": dict(self.seconds),
            "detached": self.detached.to_json(),
        }


@dataclass(frozen=True)
class Failure:
    """A method that broke down: in which part, with what error, and whether it left the model as it was.

    `detached` is None where nothing was tried because an earlier method had changed the model.
    """

    method: str
    part: str
    error: str
    seconds: dict[str, float] = field(default_factory=dict)
    detached: Detached | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "part": self.part,
            "error": self.error,
            "seconds": dict(self.seconds),
            "detached": None if self.detached is None else self.detached.to_json(),
        }


@dataclass(frozen=True)
class Demonstration:
    """One concept, one model, several methods: pictures before, and what each method made of them.

    `request` has the anchor that was used; `anchor_given` says whether somebody asked for it. `not_loaded` names
    plugins that could not be tried.
    """

    subject: Subject
    request: Request
    anchor_given: bool
    sampling: Sampling
    base: tuple[Image, ...]
    results: tuple[Outcome | Failure, ...]
    seconds: dict[str, float]
    environment: dict[str, str]
    not_loaded: tuple[str, ...] = ()

    @property
    def concept(self) -> Concept:
        return self.request.concepts[0]

    @property
    def outcomes(self) -> list[Outcome]:
        return [result for result in self.results if isinstance(result, Outcome)]

    @property
    def failures(self) -> list[Failure]:
        return [result for result in self.results if isinstance(result, Failure)]

    @property
    def sound(self) -> bool:
        """Whether every method went through and left the model bit for bit as it was."""
        return not self.failures and all(outcome.detached.identical for outcome in self.outcomes)

    def mean_changes(self, outcome: Outcome) -> list[float]:
        """The mean change per prompt, over its seeds."""
        return [mean(row) for row in self.sampling.by_prompt(outcome.changes)]

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.subject.to_json(),
            "request": self.request.to_json(),
            "anchor_given": self.anchor_given,
            "sampling": self.sampling.to_json() | {"size": list(self.base[0].size)},
            "seconds": dict(self.seconds),
            "methods": [self._result(result) for result in self.results],
            "not_loaded": list(self.not_loaded),
            "environment": dict(self.environment),
        }

    def _result(self, result: Outcome | Failure) -> dict[str, Any]:
        if isinstance(result, Failure):
            return result.to_json()
        rows = zip(self.sampling.prompts, self.sampling.by_prompt(result.changes), strict=True)
        changes = [{"prompt": prompt.text, "mean": mean(row), "by_seed": list(row)} for prompt, row in rows]
        return result.to_json() | {"mean_absolute_pixel_change": changes}
