"""The page that a hub shows for an erasure: what it erases from what, how, with which figures, and where it ends."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from efface.concept import Concept
from efface.erasure import Erasure
from efface.errors import EffaceError
from efface.method import covers
from efface.registry import Registry
from efface.wording import size

TAGS = ("efface", "concept-erasure", "text-to-image", "diffusers")
SHOWN = 20


def card(
    file: str | os.PathLike[str],
    *,
    base: str | None = None,
    figures: Mapping[str, Any] | None = None,
    registry: Registry | None = None,
) -> str:
    """The page of an erasure's file, as Markdown with the hub's YAML head.

    `base` is the hub id of the model that it was made for. `figures` is what `efface evaluate --json` printed for this
    erasure alone: EffaceError where it is of another one.
    """
    path, erasure = Path(file), Erasure.load(file)
    parts = [
        _head(erasure, base),
        _title(erasure),
        _use(path.name, base),
        _concepts(erasure),
        _method(erasure, path.stat().st_size),
        _figures(erasure, figures) if figures is not None else (),
        _limits(erasure, registry or Registry.installed(), figures is not None),
    ]
    return "\n\n".join(text for part in parts if (text := "\n".join(part))) + "\n"


def _head(erasure: Erasure, base: str | None) -> Iterator[str]:
    yield "---"
    yield "library_name: efface"
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
    yield f"pipe = efface.load({json.dumps(base or 'the model it was made for')})"
    yield f"erasure = efface.Erasure.load({json.dumps(name)})"
    yield "with efface.Editor(pipe, erasure):"
    yield '    image = pipe("a picture").images[0]'
    yield "```"


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
    yield f"Made for a {header.base.get('pipeline')} in {header.base.get('dtype')}."
    yield ""
    yield "| setting | value |"
    yield "|---|---|"
    yield from (f"| `{name}` | {_plain(json.dumps(value))} |" for name, value in sorted(header.settings.items()))


def _figures(erasure: Erasure, figures: Mapping[str, Any]) -> Iterator[str]:
    entries, concepts = figures.get("erasures") or [], figures.get("concepts") or {}
    if [entry.get("sha256") for entry in entries] != [erasure.digest]:
        labels = ", ".join(str(entry.get("label")) for entry in entries) or "nothing"
        raise EffaceError(f"These figures are of {labels}, not of this erasure alone (sha256 {erasure.digest[:12]}...)")
    sampling, model = figures.get("sampling", {}), figures.get("model", {})
    yield "## Figures"
    yield ""
    yield (
        f"On {_plain(str(model.get('name')))}, {len(figures.get('seeds', ()))} seeds, {sampling.get('steps')} steps of "
        f"{sampling.get('scheduler')}, guidance {sampling.get('guidance')}; 95 % intervals in brackets."
    )
    yield ""
    yield "| | " + " | ".join(map(_plain, concepts)) + " |"
    yield "|---" * (len(concepts) + 1) + "|"
    for name in dict.fromkeys(name for found in concepts.values() for name in found):
        cells = [found.get(name) for found in concepts.values()]
        if any(isinstance(cell, Mapping) for cell in cells):
            yield f"| `{name}` | " + " | ".join(map(_cell, cells)) + " |"


def _cell(found: Any) -> str:
    if not isinstance(found, Mapping):
        return "not measured"
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f}), n = {found['n']}"


def _limits(erasure: Erasure, registry: Registry, measured: bool) -> Iterator[str]:
    yield "## Limits"
    yield ""
    try:
        known = covers(registry.method(erasure.method))
    except EffaceError:
        known = None
    around = known.bypassed_by if known else ()
    yield f"- Goes around it: {', '.join(around)}." if around else "- The method does not say what goes around it."
    yield "- Words that were not named are erased as far as the model takes them for those that were."
    yield "- An erasure is no filter: a prompt searched for the purpose may bring the concept back."
    if not measured:
        yield "- No figures were given for this page; `efface evaluate` makes them."


def _plain(text: str) -> str:
    """A text that Markdown shows as it is, in a table too."""
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>|#" else letter for letter in text)
