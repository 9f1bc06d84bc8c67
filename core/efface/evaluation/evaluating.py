"""How well erasures do on a pipeline, in figures with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from efface.editor import Editor
from efface.erasure import Erasure
from efface.errors import EffaceError, UnknownSuite
from efface.evaluation import stages
from efface.evaluation.controls import check_control
from efface.evaluation.gallery import Gallery
from efface.evaluation.interaction import alone, own
from efface.evaluation.sampler import fast_sampler
from efface.evaluation.scores import Evaluation
from efface.evaluation.studio import Studio, subject_of
from efface.evaluation.targets import Targets
from efface.evaluation.work import Work, scored, views
from efface.generating import check_steps
from efface.method import Progress, silent
from efface.model import Model
from efface.processes import ALONE, Processes
from efface.registry import Registry
from efface.report.environment import environment
from efface.report.imprint import weights_digest
from efface.report.subject import Subject
from efface.suite import Suite, settings_of
from efface.untouched import untouched
from efface_hooks import Wiring
from efface_hooks.errors import listed

QUICK = 10
LIBRARIES = ("efface", "torch", "diffusers", "transformers")


def evaluate(
    pipe: Any,
    erasures: Sequence[Erasure] = (),
    *,
    model: str,
    registry: Registry,
    suite: Suite | None = None,
    seeds: Sequence[int] = range(50),
    quick: bool = False,
    scales: Sequence[float] = (),
    steps: int = 15,
    guidance: float | None = None,
    batch_size: int = 10,
    gallery: Gallery | None = None,
    controls: Sequence[str] = (),
    each_alone: bool = True,
    allow_other_base: bool = False,
    progress: Progress = silent,
    processes: Processes = ALONE,
) -> Evaluation:
    """The figures of every concept that these erasures, put on together, erase; the pipeline ends as it began.

    Pictures are made before and after at the same seeds by DPM-Solver++, `quick` with the first ten seeds only. Those
    in the gallery are taken from there, so that an interrupted evaluation goes on where it was. `suite` is the first
    installed one that accepts the model unless one is given, `guidance` the suite's. `controls` adds rows for "noise"
    and "blank"; `each_alone` what each of several erasures does by itself. The pictures are shared out between
    `processes`; the gallery is the first one's, and all get the same figures. Raises before a picture is made:
    UnknownSuite, BadConcept for a concept that the suite cannot tell, AlreadyEdited, WrongBase, EffaceError.
    """
    seeds = tuple(seeds)[:QUICK] if quick else tuple(seeds)
    strengths = tuple(scales) or (1.0,) * len(erasures)
    _check(pipe, erasures, strengths, seeds, steps, batch_size, controls)
    reader = Model(pipe, registry)
    judge = _suite(suite, reader, model, registry)
    requests = tuple(erasure.request for erasure in erasures)
    targets = Targets(judge, requests, reader.neutral, seeds, batch_size).all()
    strength = judge.guidance if guidance is None else guidance
    with (
        untouched(pipe),
        fast_sampler(pipe) as sampler,
        Editor(pipe, allow_other_base=allow_other_base, registry=registry) as editor,
    ):
        for erasure, scale in zip(erasures, strengths, strict=True):
            editor.attach(erasure, scale=scale)
        stack = stacked(editor)
        editor.disable()
        weights = weights_digest(pipe)
        studio = Studio(pipe, gallery or Gallery(), subject_of(pipe, weights), steps, strength)
        after = [stages.edited(editor, registry), *(stages.controlled(pipe, name) for name in dict.fromkeys(controls))]
        single = [entry for entry in editor.entries if entry.scale > 0] if each_alone and len(erasures) > 1 else []
        singly = [(entry.label, own(judge, entry.erasure, targets)) for entry in single]
        work = [
            Work.before(targets),
            *(Work.after(stage, targets) for stage in after),
            *(
                Work.alone(stages.alone(editor, entry, registry), targets, mine)
                for entry, (_, mine) in zip(single, singly, strict=True)
            ),
        ]
        base, *seen = views(studio, judge, targets, work, progress, processes)
        found = processes.first(lambda: [scored(targets, base, view) for view in seen[: len(after)]])
        apart = processes.first(
            lambda: [
                alone(label, targets, mine, base, view)
                for (label, mine), view in zip(singly, seen[len(after) :], strict=True)
            ]
        )
    return Evaluation(
        concepts=found[0],
        controls=dict(zip((stage.name for stage in after[1:]), found[1:], strict=True)),
        alone=tuple(apart),
        seeds=seeds,
        quick=quick,
        sampling={
            "scheduler": type(sampler).__name__,
            "steps": steps,
            "guidance": strength,
            "batch_size": batch_size,
            "pictures": {one.stage.name: one.pictures for one in work},
            "libraries": libraries(),
        },
        model=Subject.of(pipe, model).to_json() | {"weights_sha256": weights},
        suite=described(judge),
        erasures=stack,
    )


def _check(
    pipe: Any,
    erasures: Sequence[Erasure],
    scales: Sequence[float],
    seeds: Sequence[int],
    steps: int,
    batch_size: int,
    controls: Sequence[str],
) -> None:
    if not erasures:
        raise EffaceError("Nothing is erased, so there is nothing to evaluate: give at least one erasure")
    if len(scales) != len(erasures):
        raise EffaceError(f"{len(scales)} scales for {len(erasures)} erasures: give one for each, or none")
    if not seeds or len(set(seeds)) < len(seeds):
        raise EffaceError("The seeds of an evaluation are different ones" if seeds else "An evaluation needs seeds")
    if batch_size < 1:
        raise EffaceError(f"A batch has at least one picture, not {batch_size}")
    check_steps(pipe, steps)
    for name in controls:
        check_control(name)
    Wiring(pipe).require_free()


def _suite(given: Suite | None, reader: Model, model: str, registry: Registry) -> Suite:
    """The given suite, or the first installed one that accepts the model, ready; UnknownSuite where there is none."""
    if given is not None:
        check_accepts(given, reader, model)
    found = given or registry.suite_for(reader)
    if found is None:
        raise UnknownSuite(f"No suite accepts {model}, so nobody can judge its pictures; {installed(registry)}")
    found.prepare()
    return found


def check_accepts(suite: Suite, reader: Model, model: str) -> None:
    """UnknownSuite for a suite that cannot judge this model."""
    if not suite.accepts(reader):
        raise UnknownSuite(f"Suite {suite.name!r} does not accept {model}: {suite.summary}")


def installed(registry: Registry) -> str:
    """The suites that there are, and which of them are worth naming."""
    suites = registry.suites()
    named = [name for name, suite in suites.items() if suite.only_by_name]
    text = listed(f"{name} ({suite.summary})" for name, suite in suites.items()) or "none"
    return f"installed: {text}" + (f"; used where they are named: {', '.join(named)}" if named else "")


def described(suite: Suite) -> dict[str, Any]:
    """What a report says of who judged, as JSON."""
    return {
        "name": suite.name,
        "summary": suite.summary,
        "digest": suite.digest,
        "settings": {one.name: getattr(suite, one.name) for one in settings_of(suite)},
        "facts": dict(suite.facts),
    }


def libraries() -> dict[str, str]:
    """Versions of those that pictures depend on."""
    return {name: version for name, version in environment().items() if name in LIBRARIES}


def stacked(editor: Editor) -> list[dict[str, Any]]:
    """What is evaluated, in order, as JSON."""
    return [
        {
            "label": entry.label,
            "method": entry.erasure.method,
            "distribution": entry.erasure.header.distribution,
            "version": entry.erasure.header.version,
            "settings": dict(entry.erasure.header.settings),
            "concepts": [concept.to_json() for concept in entry.erasure.concepts],
            "scale": entry.scale,
            "sha256": entry.erasure.digest,
            "other_base": planned.other_base,
        }
        for entry, planned in zip(editor.entries, editor.plan().erasures, strict=True)
    ]
