"""The run behind a demonstration: pictures before, then every method on, photographed, measured, and off again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from efface.concept import Request
from efface.editor import Editor
from efface.erasure import Erasure
from efface.errors import UnknownMethod
from efface.evaluation.scores import Evaluation
from efface.method import Method, Progress, silent
from efface.model import Model
from efface.registry import Registry
from efface.report.budget import Budget
from efface.report.change import changes
from efface.report.demonstration import Demonstration, Failure, Outcome, Result, Skipped
from efface.report.environment import environment
from efface.report.example import anchored
from efface.report.illustration import Illustration, Showing, drawing_of
from efface.report.imprint import Detached, Imprint
from efface.report.measuring import Measure
from efface.report.progress import named
from efface.report.sampling import Sampling
from efface.report.shipped import Shipped
from efface.report.stopwatch import Stopwatch
from efface.report.subject import Subject
from efface.report.supply import Supply, Taken, size_of
from efface.report.touched import Touched
from efface.settings import build
from efface.suite import Suite
from efface_hooks import Wiring

if TYPE_CHECKING:
    from PIL.Image import Image


def demonstrate(
    pipe: Any,
    request: Request,
    sampling: Sampling,
    methods: Sequence[str] = (),
    *,
    model: str,
    registry: Registry,
    suite: Suite | None = None,
    seed: int = 0,
    budget: Budget | None = None,
    measure: Measure | None = None,
    unmeasured: str = "",
    watch: Stopwatch | None = None,
    progress: Progress = silent,
) -> Demonstration:
    """Fit and show every method, one after the other; the pipeline ends as it began.

    The request has one concept; without an anchor it becomes the model's neutral prompt. Without `methods`, all
    installed ones are tried. One that raises becomes a `Failure` and the others go on; one that the `budget` has no
    time for is shown by a fitted file of the model, or becomes a `Skipped`. `model` is what the pipeline was loaded
    by; `watch` holds the time that took. `measure` gives the figures; without it `unmeasured` says why there are
    none. No fit draws a held-out word of the `suite`. Raises BadConcept or UnknownMethod before anything is computed.
    """
    watch, budget = watch or Stopwatch(), budget or Budget()
    chosen = list(dict.fromkeys(methods)) or _installed(registry)
    for method in chosen:
        registry.method(method)
    sampling.check(pipe)
    answered = _answered(request, Model(pipe, registry))
    with watch.timing("check"):
        before = Imprint.of(pipe, sampling)
    with watch.timing("base images"):
        base = sampling.pictures(pipe, named("before", progress))
    stage = _Stage(
        pipe=pipe,
        request=request,
        answered=answered,
        sampling=sampling,
        base=base,
        before=before,
        registry=registry,
        supply=Supply(pipe, registry, suite, Shipped.of(pipe, model, registry), budget, seed, progress),
        budget=budget,
        measure=measure,
        watch=watch,
        progress=progress,
    )
    return Demonstration(
        subject=Subject.of(pipe, model),
        request=answered,
        anchor_given=request == answered,
        sampling=sampling,
        base=base,
        results=tuple(stage.results(chosen)),
        seconds=watch.seconds,
        environment=environment(),
        budget=budget,
        measured=measure.pictures if measure else 0,
        unmeasured=unmeasured,
        not_loaded=() if methods else tuple(f"{one.plugin.name}: {one.error}" for one in registry.broken),
    )


@dataclass(frozen=True)
class _Stage:
    """What every method meets: the same model, request, prompts and seeds."""

    pipe: Any
    request: Request
    answered: Request
    sampling: Sampling
    base: tuple[Image, ...]
    before: Imprint
    registry: Registry
    supply: Supply
    budget: Budget
    measure: Measure | None
    watch: Stopwatch
    progress: Progress

    def results(self, methods: Sequence[str]) -> list[Result]:
        """One result per method, in order; the quickest fit is run first.

        After a method that left the model changed, nothing more is tried.
        """
        found: dict[str, Result] = {}
        spoiler = ""
        for method in sorted(methods, key=self.supply.cost):
            if spoiler:
                found[method] = Failure(method, "", f"not tried: {spoiler} left the model changed")
                continue
            base_too = self.measure is not None and not found  # the first figures take the base's pictures as well
            found[method] = self._result(method, len(methods) - len(found) + base_too)
            spoiler = method if _spoiled(found[method]) else ""
        return [found[method] for method in methods]

    def _result(self, method: str, waiting: int) -> Result:
        watch = Stopwatch()
        try:
            taken = self._taken(method, waiting, watch)
            if isinstance(taken, Skipped):
                return taken
            touched, images = self._shown(method, taken.erasure, watch)
            evaluation = self._measured(method, taken.erasure, watch)
            drawn = self._illustrated(method, taken.erasure, watch)
        except Exception as error:  # a plugin's fault costs its own section of the page and no other
            return Failure(method, watch.part, _in_a_line(error), watch.seconds, self._detached())
        with watch.timing("check"):
            detached = self._detached()
        header = taken.erasure.header
        return Outcome(
            method=method,
            about=_about(self.registry.method(method)),
            distribution=header.distribution,
            version=header.version,
            settings=header.settings,
            report=header.report,
            sha256=taken.erasure.digest,
            size=size_of(taken.erasure),
            touched=touched,
            images=images,
            changes=changes(self.base, images),
            seconds=watch.seconds,
            detached=detached,
            file=taken.file,
            why=taken.why,
            evaluation=evaluation,
            illustrations=drawn,
        )

    def _taken(self, method: str, waiting: int, watch: Stopwatch) -> Taken | Skipped:
        left = self.budget.left(self.watch.elapsed, self._showing, waiting)
        return self.supply.take(method, self.request, self.answered, left, watch)

    def _shown(self, method: str, erasure: Erasure, watch: Stopwatch) -> tuple[Touched, tuple[Image, ...]]:
        with Editor(self.pipe, registry=self.registry) as editor:
            with watch.timing("attach"):
                editor.attach(erasure)
            wiring = Wiring.of(self.pipe)
            touched = Touched.by(wiring.patches if wiring else ())
            with watch.timing("pictures"):
                images = self.sampling.pictures(self.pipe, named(method, self.progress))
            with watch.timing("detach"):
                editor.detach()
        return touched, images

    def _measured(self, method: str, erasure: Erasure, watch: Stopwatch) -> Evaluation | None:
        if self.measure is None:
            return None
        with watch.timing("figures"):
            return self.measure(self.pipe, erasure, named(method, self.progress))

    def _illustrated(self, method: str, erasure: Erasure, watch: Stopwatch) -> tuple[Illustration, ...]:
        header = erasure.header
        illustrate = drawing_of(build(self.registry.method_of(header), header.settings))
        if illustrate is None:
            return ()
        with watch.timing("illustrations"):
            showing = Showing(self.pipe, self.registry, self.sampling, self.base, named(method, self.progress))
            return tuple(illustrate(erasure, showing))

    @property
    def _showing(self) -> float:
        """Seconds that pictures and figures of one method take, at the pace of the base pictures."""
        pictures = len(self.base) + (self.measure.pictures if self.measure else 0)
        return pictures * self.watch.seconds["base images"] / len(self.base)

    def _detached(self) -> Detached:
        try:
            return Detached.compared(self.before, Imprint.of(self.pipe, self.sampling))
        except Exception:  # a pipeline that cannot even be asked is not what it was
            return Detached(same_picture=False, same_weights=False, weights="")


def _installed(registry: Registry) -> list[str]:
    methods = list(registry.methods())
    if not methods:
        raise UnknownMethod("There is no method to show: no installed plugin brings one. Try efface doctor")
    return methods


def _answered(request: Request, model: Model) -> Request:
    """The request with the anchor that will be used; BadConcept for words that the model cannot read."""
    found = anchored(request, model.neutral)
    (concept,) = found.concepts
    model.encode_phrases([*concept.phrases, concept.anchor or ""], request.templates)
    return found


def _spoiled(result: Result) -> bool:
    """Whether the model is not what it was after this method."""
    return not isinstance(result, Skipped) and not (result.detached and result.detached.identical)


def _about(method: type[Method]) -> str:
    """The first line of a method's own description; a dataclass without one has only its signature there."""
    text = (method.__doc__ or "").strip()
    return "" if text.startswith(f"{method.__name__}(") else text.partition("\n")[0]


def _in_a_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
