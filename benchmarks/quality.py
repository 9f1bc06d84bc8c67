"""How well methods erase: the figures of `efface evaluate`, one column per concept, as a Markdown table.

Each concept is erased on its own, with the keep list and templates of the model's suite, at the method's defaults
unless settings are given; a method with a setting `exclude` gets the suite's held-out words there. Pictures are kept
in efface's cache, so an interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import efface
from efface.evaluation.controls import CONTROLS
from efface.evaluation.evaluating import evaluate
from efface.evaluation.gallery import Gallery, usual_folder
from efface.evaluation.scores import FIGURES, Estimate, Evaluation, Scores
from efface.report.example import Wish, unseen
from efface.writing import write

USUAL = ("cat:fish", "car:house", "skull:mushroom", "mosaic")


def measured(pipe: Any, suite: efface.Suite, concept: str, options: argparse.Namespace) -> Evaluation:
    """Fit and evaluate; the concept's text may be followed by a colon and its anchor."""
    registry = efface.Registry.installed()
    text, _, anchor = concept.partition(":")
    request = Wish(text, anchor or None).request(suite)
    erasure = efface.erase(
        pipe,
        request.concepts,
        method=options.method,
        keep=request.keep,
        templates=request.templates,
        preset=options.preset,
        settings=unseen(suite, registry.method(options.method)) | dict(pair.split("=", 1) for pair in options.set),
        registry=registry,
    )
    return evaluate(
        pipe,
        [erasure],
        model=options.model,
        registry=registry,
        suite=suite,
        seeds=range(options.seeds),
        gallery=Gallery(usual_folder()),
        controls=tuple(CONTROLS) if concept == options.controls else (),
        progress=lambda done, total, what: print(f"\r{concept}: {done} of {total}", end="", file=sys.stderr),
    )


def lines(rows: Mapping[str, Scores]) -> Iterator[str]:
    """Figures down, concepts across."""
    yield "| | " + " | ".join(rows) + " |"
    yield "|---" * (len(rows) + 1) + "|"
    for figure in FIGURES:
        yield f"| {figure} | " + " | ".join(cell(scores, figure) for scores in rows.values()) + " |"


def cell(scores: Scores, figure: str) -> str:
    found: Estimate | None = getattr(scores, figure)
    if found is None:
        return ""
    worst = f", {scores.worst}" if figure == "specificity_worst" else ""
    return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f}, n = {found.n}{worst})"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--model", default="picturebook")
    arguments.add_argument("--method", default="uce")
    arguments.add_argument("--preset")
    arguments.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    arguments.add_argument("--concept", action="append", metavar="TEXT[:ANCHOR]", help=f"default: {' '.join(USUAL)}")
    arguments.add_argument("--controls", metavar="TEXT[:ANCHOR]", help="the concept that gets the control rows")
    arguments.add_argument("--seeds", type=int, default=50)
    arguments.add_argument("--output", type=Path, help="the figures as JSON")
    options = arguments.parse_args()
    pipe = efface.load(options.model)
    suite = efface.Registry.installed().suite_for(efface.Model(pipe))
    if suite is None:
        raise SystemExit(f"No installed suite accepts {options.model}")
    found = {concept: measured(pipe, suite, concept, options) for concept in options.concept or USUAL}
    print(file=sys.stderr)
    shown = {concept: next(iter(one.concepts.values())) for concept, one in found.items()}
    controls = {
        f"{name} ({concept})": next(iter(rows.values()))
        for concept, one in found.items()
        for name, rows in one.controls.items()
    }
    for line in lines(shown | controls):
        print(line)
    if options.output:
        data = {concept: one.to_json() for concept, one in found.items()}
        write(options.output, json.dumps(data, indent=1).encode() + b"\n", make_folder=True)


if __name__ == "__main__":
    main()
