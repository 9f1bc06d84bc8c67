"""From a concept to an erasure: one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from efface.concept import Concept, Kind, Request
from efface.erasure import Erasure
from efface.errors import BadConcept, BadSetting, EffaceError, PluginError
from efface.fingerprint import fingerprint
from efface.header import shown
from efface.method import Fit, Fitted, Method, Progress, Run, check_method, silent, splits
from efface.model import Model
from efface.processes import ALONE, Processes
from efface.registry import Registry
from efface.settings import build
from efface.settings import preset as preset_of
from efface.untouched import untouched
from efface_hooks import Patch


def erase(
    pipe: Any,
    concept: str | Concept | Sequence[str | Concept],
    *,
    method: str | Method,
    anchor: str | None = None,
    synonyms: Sequence[str] = (),
    kind: Kind = "object",
    keep: Sequence[str] = (),
    templates: Sequence[str] = ("{}",),
    preset: str | None = None,
    settings: Mapping[str, object] | None = None,
    seed: int = 0,
    progress: Progress = silent,
    folder: Path | None = None,
    processes: Processes = ALONE,
    registry: Registry | None = None,
) -> Erasure:
    """Fit a method on a pipeline, which stays as it was; attach the result with `Editor(pipe, erasure)`.

    `concept` is a text, a `Concept`, or several; `anchor`, `synonyms` and `kind` are for texts. Without an anchor a
    concept becomes the model's neutral prompt; the erasure's request and report say so. `method` is a name, or an
    instance with its settings. Edits that are on the pipeline are off during the fit. With several `processes`, for a
    method that `splits` its fit, each does a part and all get the erasure. Raises UnknownMethod, BadConcept,
    BadSetting or EffaceError before anything is computed.
    """
    registry = registry or Registry.installed()
    chosen, run = _chosen(method, preset, settings, registry), Run(seed, progress, folder, processes)
    if processes.count > 1 and not splits(chosen):
        so = " with these settings" if isinstance(getattr(type(chosen), "splits", None), property) else ""
        raise EffaceError(f"Method {chosen.name!r}{so} fits in one process, and this run has {processes.count}")
    model = Model(pipe, registry)
    request, chosen_by_us = _anchored(_request(concept, anchor, synonyms, kind, keep, templates), model)
    for each in request.concepts:
        _check_phrases(model, each, request.templates)
    with untouched(pipe):
        fit = chosen.fit(model, request, run)
        if not isinstance(fit, Fit):
            raise PluginError(f"Method {chosen.name!r} must return an efface.Fit from fit, not {fit!r}")
        if chosen_by_us:
            fit = replace(fit, report=fit.report | {"neutral anchor": list(chosen_by_us)})
        patch = Patch(pipe, registry.points(pipe))
        chosen.apply(patch, [Fitted(fit, request)])
        touched = {edit.point.name: edit.point for edit in patch.edits}
        base = fingerprint(pipe, touched.values())
    return Erasure.of(chosen, fit, request, origin=registry.origin(type(chosen)), base=base, points=touched, seed=seed)


def _chosen(
    method: str | Method, preset: str | None, settings: Mapping[str, object] | None, registry: Registry
) -> Method:
    if not isinstance(method, str):
        check_method(type(method))
        if preset is not None or settings is not None:
            raise BadSetting(f"{method!r} has its settings already; give the method by name, or leave them out")
        return method
    cls = registry.method(method)
    base = preset_of(cls, preset) if preset else {}
    return build(cls, {**base, **(settings or {})})


def _request(
    concept: str | Concept | Sequence[str | Concept],
    anchor: str | None,
    synonyms: Sequence[str],
    kind: Kind,
    keep: Sequence[str],
    templates: Sequence[str],
) -> Request:
    given = [concept] if isinstance(concept, str | Concept) else list(concept)
    texts = [one for one in given if isinstance(one, str)]
    if synonyms and len(texts) != 1:
        raise BadConcept(f"synonyms belong to one concept; for {len(given)} give each as a Concept")
    if not texts and (anchor is not None or kind != "object"):
        raise BadConcept("anchor and kind are for concepts given as text; a Concept has its own")
    concepts = [Concept(one, anchor, tuple(synonyms), kind) if isinstance(one, str) else one for one in given]
    return Request(tuple(concepts), tuple(keep), tuple(templates))


def _check_phrases(model: Model, concept: Concept, templates: Sequence[str]) -> None:
    """BadConcept for words that the model does not have or cannot hold; of those beside it the concept is named."""
    model.check_phrases([concept.text], templates)
    try:
        model.check_phrases([*concept.synonyms, concept.anchor or ""], templates)
    except BadConcept as error:
        raise BadConcept(f"Concept {shown(concept.text)}: {error}") from error


def _anchored(request: Request, model: Model) -> tuple[Request, tuple[str, ...]]:
    """The request with the neutral prompt for every missing anchor, and the concepts that lacked one."""
    lacking = tuple(concept.text for concept in request.concepts if concept.anchor is None)
    neutral = model.neutral if lacking else ""
    full = [replace(one, anchor=neutral) if one.anchor is None else one for one in request.concepts]
    return replace(request, concepts=tuple(full)), lacking
