"""Everything that one demonstration found, as it was found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from efface.concept import Concept, Request
from efface.evaluation.scores import Evaluation, Scores
from efface.report.budget import Budget
from efface.report.change import mean
from efface.report.illustration import Illustration
from efface.report.imprint import Detached
from efface.report.sampling import Sampling
from efface.report.subject import Subject
from efface.report.touched import Touched

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Outcome:
    """What one method did: its erasure, what that touched, the pictures after and how much each one changed.

    `file` is the fitted file that was used, and `why` the reason; both are empty where the method was fitted here.
    `evaluation` is None where nothing can tell what pictures show. `illustrations` are the method's own pictures.
    """

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
    file: str = ""
    why: str = ""
    evaluation: Evaluation | None = None
    illustrations: tuple[Illustration, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "distribution": self.distribution,
            "version": self.version,
            "error": None,
            "fitted": not self.file,
            "file": self.file or None,
            "settings": self.settings,
            "report": self.report,
            "artifact": {"sha256": self.sha256, "bytes": self.size},
            "touched": self.touched.to_json(),
            "seconds": dict(self.seconds),
            "detached": self.detached.to_json(),
        }


@dataclass(frozen=True)
class Skipped:
    """A method that was not run, and why."""

    method: str
    why: str

    def to_json(self) -> dict[str, Any]:
        return {"method": self.method, "not_run": self.why}


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


Result = Outcome | Skipped | Failure


@dataclass(frozen=True)
class Demonstration:
    """One concept, one model, several methods: pictures before, and what each method made of them.

    `request` has the anchor that was used; `anchor_given` says whether somebody asked for it. `measured` is the number
    of pictures that a method's figures come from; where there are none, `unmeasured` says why. `not_loaded` names
    plugins that could not be tried.
    """

    subject: Subject
    request: Request
    anchor_given: bool
    sampling: Sampling
    base: tuple[Image, ...]
    results: tuple[Result, ...]
    seconds: dict[str, float]
    environment: dict[str, str]
    budget: Budget = field(default_factory=Budget)
    measured: int = 0
    unmeasured: str = ""
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
    def skipped(self) -> list[Skipped]:
        return [result for result in self.results if isinstance(result, Skipped)]

    @property
    def evaluation(self) -> Evaluation | None:
        """Any one of the evaluations: they differ in the erasure alone."""
        return next((outcome.evaluation for outcome in self.outcomes if outcome.evaluation), None)

    @property
    def sound(self) -> bool:
        """Whether every method that was run went through and left the model bit for bit as it was."""
        return not self.failures and all(outcome.detached.identical for outcome in self.outcomes)

    def scores(self, outcome: Outcome) -> Scores | None:
        """The figures of the one concept."""
        return next(iter(outcome.evaluation.concepts.values())) if outcome.evaluation else None

    def mean_changes(self, outcome: Outcome) -> list[float]:
        """The mean change per prompt, over its seeds."""
        return [mean(row) for row in self.sampling.by_prompt(outcome.changes)]

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.subject.to_json(),
            "request": self.request.to_json(),
            "anchor_given": self.anchor_given,
            "sampling": self.sampling.to_json() | {"size": list(self.base[0].size)},
            "budget": {"seconds": self.budget.seconds, "refit": self.budget.refit},
            "seconds": dict(self.seconds),
            "figures": self._figures(),
            "methods": [self._result(result) for result in self.results],
            "not_loaded": list(self.not_loaded),
            "environment": dict(self.environment),
        }

    def _figures(self) -> dict[str, Any]:
        """How the figures of the methods were made, or why there are none."""
        found = self.evaluation
        if found is None:
            return {"missing": self.unmeasured}
        how = {"suite": found.suite, "quick": found.quick, "seeds": list(found.seeds), "sampling": found.sampling}
        return how | {"pictures_of_each_method": self.measured}

    def _result(self, result: Result) -> dict[str, Any]:
        if not isinstance(result, Outcome):
            return result.to_json()
        rows = zip(self.sampling.prompts, self.sampling.by_prompt(result.changes), strict=True)
        changes = [{"prompt": prompt.text, "mean": mean(row), "by_seed": list(row)} for prompt, row in rows]
        scores = self.scores(result)
        return result.to_json() | {
            "mean_absolute_pixel_change": changes,
            "figures": scores.to_json() if scores else None,
        }
