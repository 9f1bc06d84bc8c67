"""The page that a hub shows for an erasure: what it erases from what, how, with which figures, and where it ends."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from efface.concept import Concept
from efface.erasure import Erasure
from efface.errors import EffaceError
from efface.header import canonical_json
from efface.method import covers
from efface.planning.around import pooled_goes_around, unedited_encoders
from efface.registry import Registry
from efface.source import HUB_ID
from efface.wording import counted, size, value
from efface_hooks.point import TEXT_ENCODERS

TAGS = ("efface", "concept-erasure", "text-to-image", "diffusers")
SHOWN = 20
FORM: Mapping[str, type] = {
    "erasures": list,
    "concepts": dict,
    "seeds": list,
    "sampling": dict,
    "model": dict,
    "suite": dict,
}


def card(
    file: str | os.PathLike[str],
    *,
    base: str | None = None,
    figures: Mapping[str, Any] | None = None,
    registry: Registry | None = None,
) -> str:
    """The page of an erasure's file, as Markdown with the hub's YAML head.

    `base` is the hub id of the model that it was made for; without it the page has digests of that model. `figures` is
    what `efface evaluate --json` printed for this erasure alone. EffaceError for a base that is no hub id, and for
    figures that are none or of another erasure.
    """
    path, erasure = Path(file), Erasure.load(file)
    if base is not None:
        _check_hub_id(base)
    parts = [
        _head(erasure, base),
        _title(erasure),
        _use(path.name, base),
        _base(erasure, base),
        _concepts(erasure),
        _method(erasure, path.stat().st_size),
        _figures(erasure, figures) if figures is not None else (),
        _limits(erasure, registry or Registry.installed(), figures is not None),
    ]
    return "\n\n".join(text for part in parts if (text := "\n".join(part))) + "\n"


def _head(erasure: Erasure, base: str | None) -> Iterator[str]:
    yield "---"
    yield "library_name: efface"
    yield "pipeline_tag: text-to-image"
    if base is not None:
        yield f"base_model: {json.dumps(base)}"
    yield "tags:"
    yield from (f"- {json.dumps(tag)}" for tag in (*TAGS, erasure.method))
    yield "---"


def _title(erasure: Erasure) -> Iterator[str]:
    texts = [_plain(concept.text) for concept in erasure.concepts]
    several = f"{', '.join(texts[:3])} and {len(texts) - 3} more" if len(texts) > 4 else ", ".join(texts)
    yield f"# {several}, erased by {erasure.method}"
    yield ""
    yield (
        "An erasure for text-to-image diffusion models. It goes on a pipeline while that runs and comes off again; "
        "the model's own weights are not in it."
    )


def _use(name: str, base: str | None) -> Iterator[str]:
    yield "## Use"
    yield ""
    yield "```python"
    yield "import efface"
    yield ""
    yield (
        f"pipe = efface.load({json.dumps(base)})" if base else "pipe = ...  # the model that it was made for, see Base"
    )
    yield f"erasure = efface.Erasure.load({json.dumps(name)})"
    yield "with efface.Editor(pipe, erasure):"
    yield '    image = pipe("a picture").images[0]'
    yield "```"


def _base(erasure: Erasure, base: str | None) -> Iterator[str]:
    made_for = erasure.header.base
    yield "## Base"
    yield ""
    name = "" if base is None else f"{_plain(base)}, "
    yield f"Made for {name}a {made_for.get('pipeline')} in {made_for.get('dtype')}."
    yield f"Structure: sha256 `{made_for.get('structure')}`. Sketches of its weights: sha256 `{_sketches(erasure)}`."
    if base is None:
        yield "The file does not name the model; `efface card FILE --base-model OWNER/NAME` puts a hub id here."
    yield "It is refused on a model of another structure or with other weights."


def _sketches(erasure: Erasure) -> str:
    return hashlib.sha256(canonical_json(erasure.header.base.get("weights", {})).encode()).hexdigest()


def _concepts(erasure: Erasure) -> Iterator[str]:
    neutral = erasure.header.report.get("neutral anchor") or ()
    yield "## Erased"
    yield ""
    yield "| concept | also | becomes | kind |"
    yield "|---|---|---|---|"
    yield from (_row(concept, neutral) for concept in erasure.concepts[:SHOWN])
    if len(erasure.concepts) > SHOWN:
        yield ""
        yield f"And {len(erasure.concepts) - SHOWN} more; `efface show` lists them."
    yield ""
    kept = ", ".join(_plain(prompt) for prompt in erasure.header.request.keep)
    yield f"Kept on purpose: {kept}." if kept else "No prompts were named to be kept."
    yield f"Templates of the fit: {', '.join(map(_plain, erasure.header.request.templates))}."


def _row(concept: Concept, neutral: Sequence[str]) -> str:
    becomes = _plain(concept.anchor or "the empty prompt")
    chosen = " (neutral prompt)" if concept.text in neutral else ""
    also = ", ".join(map(_plain, concept.synonyms))
    return f"| {_plain(concept.text)} | {also} | {becomes}{chosen} | {concept.kind} |"


def _method(erasure: Erasure, length: int) -> Iterator[str]:
    header = erasure.header
    origin = f"{header.distribution} {header.version}" if header.distribution else "no installed plugin"
    yield "## Method"
    yield ""
    yield f"`{header.method}` ({origin}), seed {header.seed}, {size(length)}, sha256 `{erasure.digest}`."
    yield ""
    yield "| setting | value |"
    yield "|---|---|"
    yield from (f"| `{name}` | {_plain(json.dumps(value))} |" for name, value in sorted(header.settings.items()))


def _figures(erasure: Erasure, figures: Mapping[str, Any]) -> Iterator[str]:
    _check_figures(erasure, figures)
    concepts: Mapping[str, Any] = figures.get("concepts", {})
    yield "## Figures"
    yield ""
    yield from _made(figures)
    yield ""
    yield "| | " + " | ".join(map(_plain, concepts)) + " |"
    yield "|---" * (len(concepts) + 1) + "|"
    rows = {name: [found.get(name) for found in concepts.values()] for each in concepts.values() for name in each}
    for name, cells in rows.items():
        if any(isinstance(cell, Mapping) for cell in cells):
            yield f"| `{name}` | " + " | ".join(map(_cell, cells)) + " |"
    empty = [f"`{name}`" for name, cells in rows.items() if all(cell is None for cell in cells)]
    if empty:
        yield ""
        yield f"Not measured, as the model or the judge cannot tell: {', '.join(empty)}."


def _made(figures: Mapping[str, Any]) -> Iterator[str]:
    """How the pictures were made, and who judged them: all that the evaluation says of it."""
    sampling, model, judge = (figures.get(name, {}) for name in ("sampling", "model", "suite"))
    seeds = figures.get("seeds", [])
    yield (
        f"On {_text(model.get('name'))}, {counted(len(seeds), 'seed')} ({', '.join(map(_text, seeds))}), "
        f"{_text(sampling.get('steps'))} {'step' if sampling.get('steps') == 1 else 'steps'} of "
        f"{_text(sampling.get('scheduler'))}, guidance {_text(sampling.get('guidance'))}; 95 % intervals in brackets."
    )
    if figures.get("quick"):
        yield "A quick look: few pictures, and so wide intervals."
    told = [_text(judge[name]) for name in ("name", "summary") if judge.get(name)]
    about = {"digest": judge.get("digest"), **judge.get("settings", {}), **judge.get("facts", {})}
    yield f"Judged by {', '.join([*told, _listed(about)])}." if told else "Who judged is not in these figures."
    made = {**sampling.get("libraries", {}), "weights_sha256": model.get("weights_sha256")}
    yield f"Made with {_listed(made)}."


def _listed(found: Mapping[str, Any]) -> str:
    return ", ".join(f"{_plain(name)} {_text(one)}" for name, one in found.items() if one is not None)


def _text(found: object) -> str:
    return _plain(value(found))


def _check_figures(erasure: Erasure, figures: object) -> None:
    """EffaceError for what `efface evaluate --json` does not print, and for figures of another erasure."""
    if not isinstance(figures, Mapping):
        raise _no_figures(f"a {type(figures).__name__}")
    for name, kind in FORM.items():
        if not isinstance(figures.get(name, kind()), kind):
            raise _no_figures(f"{name!r} is {value(figures[name])}")
    for name in ("erasures", "concepts"):
        entries = figures.get(name, [])
        each = entries.values() if isinstance(entries, Mapping) else entries
        if not all(isinstance(one, Mapping) for one in each):
            raise _no_figures(f"{name!r} holds something else than objects")
    entries = figures.get("erasures", [])
    if [entry.get("sha256") for entry in entries] != [erasure.digest]:
        labels = ", ".join(str(entry.get("label")) for entry in entries) or "nothing"
        raise EffaceError(f"These figures are of {labels}, not of this erasure alone (sha256 {erasure.digest[:12]}...)")
    for concept, found in figures.get("concepts", {}).items():
        for name, cell in found.items():
            if isinstance(cell, Mapping) and not _is_estimate(cell):
                raise _no_figures(f"{name!r} of {concept!r} lacks a value, low, high or n")


def _no_figures(what: str) -> EffaceError:
    return EffaceError(f"These are not the figures that efface evaluate --json prints: {what}")


def _is_estimate(cell: Mapping[str, Any]) -> bool:
    return all(isinstance(cell.get(name), int | float) for name in ("value", "low", "high", "n"))


def _cell(found: Any) -> str:
    if not isinstance(found, Mapping):
        return "not measured"
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f}), n = {found['n']}"


def _limits(erasure: Erasure, registry: Registry, measured: bool) -> Iterator[str]:
    yield "## Limits"
    yield ""
    yield f"- {_around(erasure, registry)}"
    yield "- Words that were not named are erased as far as the model takes them for those that were."
    yield "- An erasure is no filter: a prompt searched for the purpose may bring the concept back."
    if not measured:
        yield "- No figures were given for this page; `efface evaluate` makes them."


def _around(erasure: Erasure, registry: Registry) -> str:
    """What its method says goes around it, and what its points say in a model with these text encoders."""
    points, encoders = erasure.header.points, _encoders(erasure)
    derived = [f"{name}, which reads prompts as well" for name in unedited_encoders(points, encoders)]
    if pooled_goes_around(points, encoders):
        derived.append(f"the pooled embedding of {TEXT_ENCODERS[1]}")
    try:
        declared = covers(registry.method_of(erasure.header))
    except EffaceError:
        return " ".join([*_goes(derived), "The method is not here to be asked what else may."])
    if declared is None:
        return " ".join([*_goes(derived), "The method does not say what goes around it."])
    if any("pooled" in one for one in declared.bypassed_by):
        derived = [one for one in derived if "pooled" not in one]
    return " ".join(_goes([*declared.bypassed_by, *derived])) or "The method names nothing that goes around it."


def _goes(around: Sequence[str]) -> list[str]:
    return [f"Goes around it: {', '.join(around)}."] if around else []


def _encoders(erasure: Erasure) -> list[str]:
    """The text encoders of the base: its fingerprint has their weights, whatever the erasure touches."""
    there = {name.partition(".")[0] for name in erasure.header.base.get("weights", {})}
    return [name for name in TEXT_ENCODERS if name in there]


def _check_hub_id(base: str) -> None:
    if not HUB_ID.fullmatch(base):
        raise EffaceError(f"A base model is named by its hub id (OWNER/NAME; base=..., --base-model), not {base!r}")


def _plain(text: str) -> str:
    """A text that Markdown shows as it is, in a table too."""
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>|#" else letter for letter in text)
