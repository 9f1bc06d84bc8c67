"""The run behind a demonstration of several erasures on one pipeline."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from efface.concept import Request
from efface.editor import Editor
from efface.erasure import Erasure
from efface.errors import EffaceError, UnknownMethod
from efface.evaluation.evaluating import QUICK, evaluate
from efface.evaluation.gallery import Gallery
from efface.evaluation.scores import Evaluation
from efface.evaluation.targets import Targets
from efface.method import Progress, cost_hint, silent
from efface.model import Model
from efface.registry import Registry
from efface.report.budget import Budget
from efface.report.change import changes
from efface.report.dealing import dealt
from efface.report.environment import environment
from efface.report.example import anchored, shown_together, together
from efface.report.imprint import Detached, Imprint
from efface.report.progress import named
from efface.report.sampling import Sampling
from efface.report.shipped import Shipped
from efface.report.stacked import Order, Part, Removal, Stacked
from efface.report.stopwatch import Stopwatch
from efface.report.subject import Subject
from efface.report.supply import Supply, Taken, size_of

if TYPE_CHECKING:
    from PIL.Image import Image

    from efface.suite import Suite


@dataclass(frozen=True)
class Figures:
    """How the figures are made: seeds, steps, and where pictures are kept."""

    seeds: tuple[int, ...] = tuple(range(QUICK))
    steps: int = 15
    gallery: Gallery = field(default_factory=Gallery)


def stack(
    pipe: Any,
    suite: Suite,
    sampling: Sampling,
    methods: Sequence[str] = (),
    *,
    model: str,
    registry: Registry,
    seed: int = 0,
    budget: Budget | None = None,
    figures: Figures | None = None,
    unmeasured: str = "",
    watch: Stopwatch | None = None,
    progress: Progress = silent,
) -> Stacked:
    """Erase the suite's stack of concepts by several methods, put all of it on one pipeline, and take it off again.

    The prompts of the `sampling` are the suite's whatever was given. Each concept goes to the next of `methods`, in
    the order in which they are given; without any to the next of all installed ones, the quickest first. What there is
    no time for comes from a file of the model or not at all. Raises BadConcept where the suite names no stack,
    UnknownMethod, EffaceError where nothing could be fitted.
    """
    watch, budget = watch or Stopwatch(), budget or Budget()
    chosen = list(dict.fromkeys(methods)) or _installed(registry)
    for method in chosen:
        registry.method(method)
    neutral = Model(pipe, registry).neutral
    requests = [anchored(request, neutral) for request in together(suite)]
    sampling = replace(sampling, prompts=shown_together(suite, requests))
    sampling.check(pipe)
    with watch.timing("check"):
        before = Imprint.of(pipe, sampling)
    with watch.timing("base images"):
        base = sampling.pictures(pipe, named("before", progress))
    supply = Supply(pipe, registry, suite, Shipped.of(pipe, model, registry), budget, seed, progress)
    showing = _showing(suite, requests, sampling, figures) * watch.seconds["base images"] / len(base)
    with watch.timing("fits"):
        found = dealt(supply, requests, chosen, lambda: budget.left(watch.elapsed, showing, 1))
    if not found.taken:
        raise EffaceError(f"Nothing could be erased: {_said(found.failures | found.missing)}")
    sampling, base = _without(sampling, base, requests, found.failures)
    scene = _Scene(pipe, model, registry, suite, sampling, figures, seed, watch, progress)
    erasures = [taken.erasure for _, taken, _ in found.taken.values()]
    with watch.timing("plan"):
        plan = Editor(pipe, registry=registry).plan(*erasures)
    labelled = dict(zip((one.label for one in plan.erasures), erasures, strict=True))
    first, images = scene.shown(labelled)
    evaluation = scene.measured(labelled, each_alone=True) if figures else None
    orders = scene.orders(labelled, first)
    removals = scene.removed(labelled)
    with watch.timing("check"):
        detached = Detached.compared(before, Imprint.of(pipe, sampling))
    return Stacked(
        subject=Subject.of(pipe, model),
        sampling=sampling,
        parts=tuple(_part(label, *given) for label, given in zip(labelled, found.taken.values(), strict=True)),
        missing=found.missing,
        failures=found.failures,
        plan=plan,
        base=base,
        images=images,
        changes=changes(base, images),
        evaluation=evaluation,
        unmeasured=unmeasured,
        orders=orders,
        removals=removals,
        detached=detached,
        seconds=watch.seconds,
        environment=environment(),
        budget=budget,
    )


@dataclass(frozen=True)
class _Scene:
    """One pipeline with nothing on it, on which erasures are tried by their labels."""

    pipe: Any
    model: str
    registry: Registry
    suite: Suite
    sampling: Sampling
    figures: Figures | None
    seed: int
    watch: Stopwatch
    progress: Progress

    def shown(self, erasures: dict[str, Erasure]) -> tuple[str, tuple[Image, ...]]:
        """Latents and pictures with all of them on."""
        with self._on(erasures):
            with self.watch.timing("pictures"):
                images = self.sampling.pictures(self.pipe, named("stack", self.progress))
            with self.watch.timing("latents"):
                return self.sampling.latents(self.pipe), images

    def measured(self, erasures: dict[str, Erasure], *, each_alone: bool) -> Evaluation:
        assert self.figures is not None
        part = "figures" if each_alone else f"figures of {', '.join(erasures)}"
        with self.watch.timing(part):
            return evaluate(
                self.pipe,
                list(erasures.values()),
                model=self.model,
                registry=self.registry,
                suite=self.suite,
                seeds=self.figures.seeds,
                steps=self.figures.steps,
                guidance=self.sampling.guidance,
                gallery=self.figures.gallery,
                each_alone=each_alone,
                progress=self.progress,
            )

    def orders(self, erasures: dict[str, Erasure], first: str) -> tuple[Order, ...]:
        """The other way round, and shuffled; measured only where the latents are others."""
        labels = list(erasures)
        tried = [order for order in (labels[::-1], self._shuffled(labels)) if order != labels]
        found = []
        with self.watch.timing("orders"):
            for order in [list(one) for one in dict.fromkeys(map(tuple, tried))]:
                other = {label: erasures[label] for label in order}
                with self._on(other):
                    identical = self.sampling.latents(self.pipe) == first
                needed = self.figures is not None and not identical
                found.append(Order(tuple(order), identical, self.measured(other, each_alone=False) if needed else None))
        return tuple(found)

    def removed(self, erasures: dict[str, Erasure]) -> tuple[Removal, ...]:
        """All of them off one by one in a random order, each time held against the rest attached by itself."""
        seen: dict[tuple[str, ...], str] = {}
        with self.watch.timing("removals"):
            order = self._shuffled(list(erasures), stream="removals")
            with self._on(erasures) as editor:
                for label in order:
                    editor.detach(label)
                    seen[tuple(entry.label for entry in editor.entries)] = self.sampling.latents(self.pipe)
            alone = {left: self._latents({label: erasures[label] for label in left}) for left in seen}
        return tuple(Removal(label, left, seen[left] == alone[left]) for label, left in zip(order, seen, strict=True))

    def _latents(self, erasures: dict[str, Erasure]) -> str:
        with self._on(erasures):
            return self.sampling.latents(self.pipe)

    def _on(self, erasures: dict[str, Erasure]) -> Editor:
        """An editor with these, in order; no two of them have one method and one concept, so labels are the same."""
        return Editor(self.pipe, *erasures.values(), registry=self.registry)

    def _shuffled(self, labels: list[str], stream: str = "order") -> list[str]:
        return random.Random(f"{self.seed} {stream}").sample(labels, len(labels))


def _installed(registry: Registry) -> list[str]:
    """All methods, the quickest to fit first."""
    methods = registry.methods()
    if not methods:
        raise UnknownMethod("There is no method to show: no installed plugin brings one. Try efface doctor")
    return sorted(methods, key=lambda name: cost_hint(methods[name]) or 0.0)


def _showing(suite: Suite, requests: Sequence[Request], sampling: Sampling, figures: Figures | None) -> int:
    """How many pictures are still to be made, about."""
    shown = len(sampling.prompts) * (len(sampling.seeds) + 2 + 2 * len(requests))
    if figures is None:
        return shown
    targets = Targets(suite, tuple(requests), "", figures.seeds, 10).all()
    once = sum(len(draw.seeds) for draw in {draw for target in targets for draw in target.compared})
    return shown + 3 * once


def _without(
    sampling: Sampling, base: tuple[Image, ...], requests: Sequence[Request], failed: dict[str, str]
) -> tuple[Sampling, tuple[Image, ...]]:
    """The prompts and pictures without those of concepts that nothing erases."""
    gone = {number for number, request in enumerate(requests) if request.concepts[0].text in failed}
    kept = [number for number in range(len(sampling.prompts)) if number not in gone]
    rows = sampling.by_prompt(base)
    prompts = tuple(sampling.prompts[number] for number in kept)
    return replace(sampling, prompts=prompts), tuple(image for number in kept for image in rows[number])


def _part(label: str, method: str, taken: Taken, seconds: float) -> Part:
    header = taken.erasure.header
    return Part(
        label=label,
        method=method,
        distribution=header.distribution,
        version=header.version,
        concept=taken.erasure.concepts[0],
        sha256=taken.erasure.digest,
        size=size_of(taken.erasure),
        seconds=seconds,
        file=taken.file,
    )


def _said(reasons: dict[str, str]) -> str:
    return "; ".join(f"{name}: {why}" for name, why in reasons.items())
