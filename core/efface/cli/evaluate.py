"""`efface evaluate`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from efface.cli.cache import cache_options, gallery_of
from efface.cli.console import Console, table
from efface.cli.launched import shared
from efface.cli.opening import judge_of, open_model, read_erasures, strengths
from efface.cli.options import (
    command,
    device_option,
    dtype_option,
    json_option,
    model_argument,
    other_base_option,
    pass_console,
    quiet_option,
    sampling_options,
    scale_option,
    suite_options,
)
from efface.cli.seeds import chosen, seed_option
from efface.cli.targets import check_target

if TYPE_CHECKING:
    from efface.evaluation.scores import Estimate, Evaluation, Scores


@command(
    "efface evaluate picturebook --erasure uce-cat.safetensors --quick",
    "efface evaluate picturebook --erasure uce-cat.safetensors --erasure uce-dog.safetensors --controls -o found.json",
)
@model_argument
@click.option("--erasure", "files", multiple=True, help="An erasure's file; several are put on in this order.")
@scale_option
@suite_options
@seed_option
@click.option("--seeds", "count", type=click.IntRange(1), help="This many seeds, counted up from --seed.  [50 from 0]")
@click.option("--quick", is_flag=True, help="The first ten seeds only.")
@click.option("--controls", is_flag=True, help="Add rows for noise and for blank prompts, which have to look bad.")
@click.option("--no-alone", is_flag=True, help="Leave out what each of several erasures does by itself.")
@sampling_options(steps=15, guidance=None, batch_size=10)
@cache_options
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the figures to this file, as JSON.")
@click.option("--force", is_flag=True, help="Overwrite the file of -o if it is there.")
@other_base_option
@device_option
@dtype_option
@json_option
@quiet_option
@pass_console
def evaluate(
    console: Console,
    model: str,
    files: tuple[str, ...],
    scales: tuple[float, ...],
    suite: str | None,
    suite_settings: tuple[str, ...],
    seeds: tuple[int, ...],
    count: int | None,
    quick: bool,
    controls: bool,
    no_alone: bool,
    steps: int,
    guidance: float | None,
    batch_size: int,
    cache: Path | None,
    no_cache: bool,
    output: Path | None,
    force: bool,
    allow_other_base: bool,
    device: str,
    dtype: str,
) -> None:
    """Measure erasures: what is gone, what stayed, what else changed.

    Pictures before and after at the same seeds are judged by a suite, which comes with a plugin. Every figure has its
    95 % interval. Pictures that were made before are used again, so an interrupted evaluation goes on where it was.
    """
    from efface.evaluation.controls import CONTROLS
    from efface.evaluation.evaluating import evaluate as evaluated
    from efface.registry import Registry
    from efface.writing import write

    if not files:
        raise click.UsageError("Nothing is erased, so there is nothing to evaluate: give --erasure FILE")
    strong, wanted = strengths(scales, len(files)), chosen(seeds, count, usual=50)
    gallery = gallery_of(cache, no_cache)
    if gallery.folder is not None:
        console.written.append(gallery.folder)
    with shared(console) as processes, console.working() as progress:
        if output is not None and processes.rank == 0:
            check_target(output, force)
        erasures = read_erasures(files)
        registry = Registry.installed()
        judge = None if suite is None else judge_of(console, registry, suite, suite_settings)
        pipe = open_model(console, model, registry, device=processes.device(device), dtype=dtype)
        found = evaluated(
            pipe,
            erasures,
            model=model,
            registry=registry,
            suite=judge,
            seeds=wanted,
            quick=quick,
            scales=strong,
            steps=steps,
            guidance=guidance,
            batch_size=batch_size,
            gallery=gallery,
            controls=tuple(CONTROLS) if controls else (),
            each_alone=not no_alone,
            allow_other_base=allow_other_base,
            progress=progress,
            processes=processes,
        )
        data = found.to_json()
        if output is not None and processes.rank == 0:
            write(output, json.dumps(data, indent=2, allow_nan=False).encode() + b"\n")
            console.written.append(output)
    console.answer(data, [*_lines(found), *([str(output)] if output else [])])


def _lines(found: Evaluation) -> Iterator[str]:
    yield from _table(found.concepts)
    for name, rows in found.controls.items():
        yield f"Control {name}, which has to look bad:"
        yield from _table(rows)
    yield from _crossed(found)
    yield _made(found)


def _crossed(found: Evaluation) -> Iterator[str]:
    """The share of pictures that show each concept with each erasure alone and with all of them, in a table."""
    from efface.evaluation.interaction import matrix

    crossed = matrix(found)
    if crossed is None:
        return
    yield "Shown with each erasure alone, and with all of them:"
    rows = {**crossed.rows} | ({"(all others lost)": crossed.lost} if any(crossed.lost) else {})
    cells = [(name, *(None if one is None else f"{one.value:.3f}" for one in row)) for name, row in rows.items()]
    yield from table(("", *crossed.columns), cells)


def _table(rows: Mapping[str, Scores]) -> list[str]:
    """A line for each figure, a column for each concept."""
    from efface.evaluation.scores import FIGURES

    cells = [(figure, *(_cell(scores, figure) for scores in rows.values())) for figure in FIGURES]
    return table(("", *rows), cells)


def _cell(scores: Scores, figure: str) -> str | None:
    """`0.060 [0.021, 0.162] of 50`, with the name of the concept that was hit worst."""
    found: Estimate | None = getattr(scores, figure)
    if found is None:
        return None
    worst = f", {scores.worst}" if figure == "specificity_worst" else ""
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}] of {found.n}{worst}"


def _made(found: Evaluation) -> str:
    from efface.wording import counted, spans

    how = found.sampling
    text = (
        f"{counted(len(found.seeds), 'seed')} ({spans(found.seeds)}), "
        f"{counted(how['steps'], 'step')} of {how['scheduler']}, guidance {how['guidance']:g}; "
        f"judged by {found.suite['name']}{_facts(found.suite['facts'])}; 95 % intervals in brackets."
    )
    return f"Quick: {text} Without --quick they are narrower." if found.quick else text


def _facts(facts: Mapping[str, str | float]) -> str:
    """What the judge's answers rest on, hashes by their first twelve digits."""
    shown = (f"{name} {str(value)[:12] if name.endswith('sha256') else value}" for name, value in facts.items())
    return f" ({', '.join(shown)})" if facts else ""
