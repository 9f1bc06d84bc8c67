"""How erasures hold against the searches of `efface attack`: a row of a Markdown table for each erasure and search.

An erasure is a file, or the name of a method, by which the example of the model's suite is then erased at the method's
defaults. Each is attacked alone, on the same seeds, with the same effort. Shares are of pictures that show the concept,
with 95 % intervals.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import efface
from efface.attack import SEARCHES, Attack, attack, search_of
from efface.evaluation.scores import Estimate
from efface.report.example import unseen

HEADS = ("erasure", "search", "erased", "attacked", "attacked, not erased", "input that was found")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("erasures", nargs="+", metavar="FILE|METHOD")
    arguments.add_argument("--model", default="picturebook")
    arguments.add_argument("--seeds", type=int, default=20)
    arguments.add_argument("--by", nargs="+", choices=list(SEARCHES), default=list(SEARCHES))
    options = arguments.parse_args()
    pipe = efface.load(options.model)
    suite = efface.Registry.installed().suite_for(efface.Model(pipe))
    if suite is None:
        raise SystemExit(f"No installed suite accepts {options.model}")
    row(HEADS)
    row(["---"] * len(HEADS))
    for given in options.erasures:
        erasure = erased(pipe, suite, given)
        for name in options.by:
            with efface.Editor(pipe, erasure):
                found = attacked(pipe, suite, erasure.concepts[0].text, name, options.seeds)
            shares = (cell(share) for share in (found.erased, found.success, found.upper))
            row((Path(given).stem, name, *shares, f"`{found.found.prompt}`"))


def erased(pipe: object, suite: efface.Suite, given: str) -> efface.Erasure:
    registry = efface.Registry.installed()
    if given not in registry.methods():
        return efface.Erasure.load(given)
    request, settings = suite.example, unseen(suite, registry.method(given))
    return efface.erase(
        pipe, request.concepts, method=given, keep=request.keep, templates=request.templates, settings=settings
    )


def attacked(pipe: object, suite: efface.Suite, concept: str, name: str, seeds: int) -> Attack:
    def told(done: int, total: int, what: str) -> None:
        print(f"\r{name}, {what}: {done} of {total}   ", end="", file=sys.stderr)

    return attack(pipe, concept, search=search_of(name, {}), suite=suite, seeds=range(seeds), progress=told)


def cell(share: Estimate | None) -> str:
    return "" if share is None else f"{share.value:.2f} ({share.low:.2f} to {share.high:.2f})"


def row(cells: Sequence[str]) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
