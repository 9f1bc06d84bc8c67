"""The run behind a demonstration: pictures before, then every method on, photographed, and off again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from efface.concept import Request
from efface.editor import Editor
from efface.erasing import erase
from efface.erasure import Erasure
from efface.errors import UnknownMethod
from efface.method import Method, Progress, silent
from efface.model import Model
from efface.registry import Registry
from efface.report.change import changes
from efface.report.demonstration import Demonstration, Failure, Outcome
from efface.report.environment import environment
from efface.report.imprint import Detached, Imprint
from efface.report.progress import named
from efface.report.sampling import Sampling
from efface.report.stopwatch import Stopwatch
from efface.report.subject import Subject
from efface.report.touched import Touched
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
    seed: int = 0,
    watch: Stopwatch | None = None,
    progress: Progress = silent,
) -> Demonstration:
    """Fit and show every method, one after the other; the pipeline ends as it began.

    The request has one concept; without an anchor it becomes the model's neutral prompt. Without `methods`, all
    installed ones are tried. One that raises becomes a `Failure` and the others go on. `model` is what the pipeline
    was loaded by; `watch` holds the time that took. Raises BadConcept or UnknownMethod before anything is computed.
    """
    watch = watch or Stopwatch()
    chosen = list(dict.fromkeys(methods)) or _installed(registry)
    for method in chosen:
        registry.method(method)
    sampling.check(pipe)
    answered = _answered(request, Model(pipe, registry))
    with watch.timing("check"):
        before = Imprint.of(pipe, sampling)
    with watch.timing("base images"):
        base = sampling.pictures(pipe, named("before", progress))
    stage = _Stage(pipe, request, sampling, base, before, registry, seed, progress)
    return Demonstration(
        subject=Subject.of(pipe, model),
        request=answered,
        anchor_given=request == answered,
        sampling=sampling,
        base=base,
        results=tuple(stage.results(chosen)),
        seconds=watch.seconds,
        environment=environment(),
        not_loaded=() if methods else tuple(f"{one.plugin.name}: {one.error}" for one in registry.broken),
    )


@dataclass(frozen=True)
class _Stage:
    """What every method meets: the same model, request, prompts and seeds."""

    pipe: Any
    request: Request
    sampling: Sampling
    base: tuple[Image, ...]
    before: Imprint
    registry: Registry
    seed: int
    progress: Progress

    def results(self, methods: Sequence[str]) -> list[Outcome | Failure]:
        """One result per method, in order; after a method that left the model changed, nothing more is tried."""
        results: list[Outcome | Failure] = []
        for method in methods:
            results.append(self._result(method))
            detached = results[-1].detached
            if detached is None or not detached.identical:
                why = f"not tried: {method} left the model changed"
                return results + [Failure(other, "", why) for other in methods[len(results) :]]
        return results

    def _result(self, method: str) -> Outcome | Failure:
        watch = Stopwatch()
        try:
            erasure, touched, images = self._shown(method, watch)
        except Exception as error:  # a plugin's fault costs its own section of the page and no other
            return Failure(method, watch.part, _in_a_line(error), watch.seconds, self._detached())
        with watch.timing("check"):
            detached = self._detached()
        return Outcome(
            method=method,
            about=_about(self.registry.method(method)),
            distribution=erasure.header.distribution,
            version=erasure.header.version,
            settings=erasure.header.settings,
            report=erasure.header.report,
            sha256=erasure.digest,
            size=_size(erasure),
            touched=touched,
            images=images,
            changes=changes(self.base, images),
            seconds=watch.seconds,
            detached=detached,
        )

    def _shown(self, method: str, watch: Stopwatch) -> tuple[Erasure, Touched, tuple[Image, ...]]:
        with watch.timing("fit"):
            erasure = self._fitted(method)
        with Editor(self.pipe, registry=self.registry) as editor:
            with watch.timing("attach"):
                editor.attach(erasure)
            wiring = Wiring.of(self.pipe)
            touched = Touched.by(wiring.patches if wiring else ())
            with watch.timing("edited images"):
                images = self.sampling.pictures(self.pipe, named(method, self.progress))
            with watch.timing("detach"):
                editor.detach()
        return erasure, touched, images

    def _fitted(self, method: str) -> Erasure:
        return erase(
            self.pipe,
            self.request.concepts,
            method=method,
            keep=self.request.keep,
            templates=self.request.templates,
            seed=self.seed,
            progress=named(method, self.progress),
            registry=self.registry,
        )

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
    (concept,) = request.concepts
    anchored = replace(concept, anchor=model.neutral) if concept.anchor is None else concept
    model.encode_phrases([*anchored.phrases, anchored.anchor or ""], request.templates)
    return replace(request, concepts=(anchored,))


def _about(method: type[Method]) -> str:
    """The first line of a method's own description; a dataclass without one has only its signature there."""
    text = (method.__doc__ or "").strip()
    return "" if text.startswith(f"{method.__name__}(") else text.partition("\n")[0]


def _size(erasure: Erasure) -> int:
    """Bytes of the erasure's file."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "erasure.safetensors"
        erasure.save(path)
        return path.stat().st_size


def _in_a_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
