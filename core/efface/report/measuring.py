"""The figures of a demonstration: a quick evaluation of each method, with the same pictures of the base."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from efface.concept import Concept, Request
from efface.erasure import Erasure
from efface.evaluation.evaluating import QUICK, evaluate
from efface.evaluation.gallery import Gallery
from efface.evaluation.scores import Evaluation
from efface.evaluation.targets import Targets, find
from efface.method import Progress
from efface.registry import Registry
from efface.suite import Suite
from efface_hooks.errors import listed


class Measure(Protocol):
    """Gives the figures of an erasure; `pictures` is how many it makes for that."""

    @property
    def pictures(self) -> int: ...

    def __call__(self, pipe: Any, erasure: Erasure, progress: Progress) -> Evaluation: ...


@dataclass(frozen=True)
class Measuring:
    """A quick evaluation by a suite; the base's pictures are made with the first erasure's and then kept."""

    suite: Suite
    request: Request
    model: str
    registry: Registry
    guidance: float | None = None
    batch_size: int = 8
    steps: int = 15
    gallery: Gallery = field(default_factory=Gallery)

    @property
    def pictures(self) -> int:
        targets = Targets(self.suite, (self.request,), "", tuple(range(QUICK)), self.batch_size).all()
        return sum(len(draw.seeds) for draw in {draw for target in targets for draw in target.compared})

    def __call__(self, pipe: Any, erasure: Erasure, progress: Progress) -> Evaluation:
        return evaluate(
            pipe,
            [erasure],
            model=self.model,
            registry=self.registry,
            suite=self.suite,
            quick=True,
            steps=self.steps,
            guidance=self.guidance,
            batch_size=self.batch_size,
            gallery=self.gallery,
            progress=progress,
        )


def unmeasured(suite: Suite | None, concept: Concept) -> str:
    """Why there can be no figures of a concept; "" where there can."""
    if suite is None:
        return "no installed suite accepts this model, so nothing here can tell what its pictures show"
    if find(suite, concept.text) is None:
        known = listed(one.text for one in suite.concepts())
        return f"the suite {suite.name} cannot tell “{concept.text}” in a picture; it can tell: {known}"
    return ""
