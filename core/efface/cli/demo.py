"""`efface demo`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from efface.cli.console import Console, table
from efface.cli.opening import open_model
from efface.cli.options import (
    Duration,
    command,
    device_option,
    dtype_option,
    json_option,
    model_argument,
    pass_console,
    quiet_option,
    sampling_options,
)
from efface.cli.seeds import chosen, seed_option, seeds_option
from efface.cli.targets import check_folder, check_target
from efface.cli.together import together
from efface.concept import Kind, Request
from efface.registry import Registry

if TYPE_CHECKING:
    from efface.report.demonstration import Demonstration, Result
    from efface.report.figure import Figure
    from efface.report.prompt import Prompt
    from efface.suite import Suite

USUAL = Path("out/demo.html")
GUIDANCE = 7.5
NOT_ASKED = "--no-figures left them out"
PARTS = ("fit", "attach", "pictures", "figures", "detach")
IN_SHORT = ("efficacy", "anchor", "generality", "specificity_drop")


@command(
    "efface demo picturebook",
    "efface demo picturebook --concept mosaic --kind style --method uce --output out/mosaic.html",
    "efface demo picturebook --concept cat --anchor dog --prompt 'a cat' --scene 'a cat and a car' --control 'a house'",
    "efface demo picturebook --compose",
)
@model_argument
@click.option("--concept", help="What to erase.  [the suite's example]")
@click.option("--anchor", help="What it becomes.  [the example's, else the model's neutral prompt]")
@click.option("--synonym", "synonyms", multiple=True, help="Another word for the concept, erased with it.")
@click.option("--kind", type=click.Choice(get_args(Kind)), help="What it is.  [what the suite says, else object]")
@click.option("--keep", multiple=True, help="A prompt that methods are told to keep.  [the example's]")
@click.option("--template", "templates", multiple=True, help="A prompt with {} where concepts go.  [the example's]")
@click.option("--method", "methods", multiple=True, help="A method to show; may be repeated.  [every installed one]")
@click.option("--prompt", "prompts", multiple=True, help="A prompt that names the concept.  [the suite's]")
@click.option("--scene", "scenes", multiple=True, help="A prompt with the concept beside something that should stay.")
@click.option("--control", "controls", multiple=True, help="A prompt whose pictures should stay as they are.")
@click.option(
    "--compose",
    is_flag=True,
    help="Erase several concepts, which the suite says, by all methods on one pipeline.  [writes out/compose.html]",
)
@click.option(
    "--budget",
    type=Duration(),
    default="10m",
    show_default=True,
    help="Time for everything, such as 90, 90s or 10m; with --compose three times that.",
)
@click.option("--no-figures", is_flag=True, help="Leave the figures out: they take more pictures than the page shows.")
@click.option("--refit", is_flag=True, help="Fit every method, however long it takes.")
@seed_option
@seeds_option
@sampling_options(guidance=None)
@click.option("-o", "--output", type=click.Path(path_type=Path), default=USUAL, show_default=True, help="The page.")
@click.option("--picture", type=click.Path(path_type=Path), help="Write an overview as one PNG file, too.")
@click.option("--force", is_flag=True, help="Overwrite the files of -o and --picture if they are there.")
@device_option
@dtype_option
@json_option
@quiet_option
@pass_console
@click.pass_context
def demo(
    ctx: click.Context,
    console: Console,
    model: str,
    concept: str | None,
    anchor: str | None,
    synonyms: tuple[str, ...],
    kind: Kind | None,
    keep: tuple[str, ...],
    templates: tuple[str, ...],
    methods: tuple[str, ...],
    prompts: tuple[str, ...],
    scenes: tuple[str, ...],
    controls: tuple[str, ...],
    compose: bool,
    budget: float,
    no_figures: bool,
    refit: bool,
    seeds: tuple[int, ...],
    count: int | None,
    steps: int,
    guidance: float | None,
    batch_size: int,
    output: Path,
    picture: Path | None,
    force: bool,
    device: str,
    dtype: str,
) -> None:
    """Erase a concept and write a page of what it does.

    One method or all of them erase it, and the page has pictures before and after, with figures.
    A model that a suite accepts needs nothing else: the suite says what to erase, what to show, and what pictures
    show. Every picture, number and time on the page is made in this run. A method that there is no time to fit is
    shown by a fitted file that came with the model, or not at all, and the page says which. A method that fails has
    its error on the page and the others go on; the exit code is 1 then.
    """
    from efface.model import Model
    from efface.report.budget import Budget
    from efface.report.demonstrating import demonstrate
    from efface.report.example import Wish
    from efface.report.measuring import Measuring, unmeasured
    from efface.report.overview import png
    from efface.report.page import page
    from efface.report.sampling import Sampling
    from efface.report.stopwatch import Stopwatch
    from efface.writing import write

    if compose:
        together(ctx, console)
        return
    wish = Wish(concept, anchor, synonyms, kind, keep, templates)
    wanted = chosen(seeds, count)
    _check_target(output, force or output == USUAL)
    if picture:
        _check_target(picture, force)
    with console.working() as progress:
        registry, watch = Registry.installed(), Stopwatch()
        for method in methods:
            registry.method(method)
        with watch.timing("load"):
            pipe = open_model(console, model, registry, device=device, dtype=dtype)
        suite = registry.suite_for(Model(pipe, registry))
        request = wish.request(suite)
        strength = guidance if guidance is not None else suite.guidance if suite else GUIDANCE
        shown = _prompts(suite, request, prompts, scenes, controls)
        why_not = NOT_ASKED if no_figures else unmeasured(suite, request.concepts[0])
        found = demonstrate(
            pipe,
            request,
            Sampling(shown, wanted, steps, strength, batch_size),
            methods,
            model=model,
            registry=registry,
            suite=suite,
            budget=Budget(budget, refit),
            measure=Measuring(suite, request, model, registry, strength, batch_size) if suite and not why_not else None,
            unmeasured=why_not,
            watch=watch,
            progress=progress,
        )
        write(output, page(found).encode("utf-8", "xmlcharrefreplace"), make_folder=True)
        console.written.append(output)
        if picture:
            write(picture, png(found), make_folder=True)
            console.written.append(picture)
    files = {"page": str(output)} | ({"picture": str(picture)} if picture else {})
    console.answer(found.to_json() | files, [*_lines(found), *files.values()])
    if not found.sound:
        ctx.exit(1)


def _check_target(file: Path, force: bool) -> None:
    check_folder(file.parent)
    if file.parent.is_dir():
        check_target(file, force)


def _prompts(
    suite: Suite | None,
    request: Request,
    prompts: tuple[str, ...],
    scenes: tuple[str, ...],
    controls: tuple[str, ...],
) -> tuple[Prompt, ...]:
    """Those that were given; without any the suite's choice, and the first of that where none names the concept."""
    from efface.report.example import prompts as usual
    from efface.report.prompt import Prompt

    given = (
        *(Prompt(text, "concept") for text in prompts),
        *(Prompt(text, "scene") for text in scenes),
        *(Prompt(text, "control") for text in controls),
    )
    if prompts or scenes:
        return given
    return (*usual(suite, request)[:1], *given) if given else usual(suite, request)


def _lines(found: Demonstration) -> Iterator[str]:
    """How long each part took, the first figures, and how it ended, a line per method."""
    from efface.report.figure import TABLE
    from efface.wording import seconds

    figures = [figure for figure in TABLE if figure.name in IN_SHORT] if found.evaluation else []
    heads = ("method", *PARTS, *(figure.title(found.concept) for figure in figures), "detached: bit-identical")
    yield from table(heads, [_row(found, result, figures) for result in found.results])
    yield ", ".join(f"{part} {seconds(time)}" for part, time in found.seconds.items())


def _row(found: Demonstration, result: Result, figures: Sequence[Figure]) -> list[str | None]:
    from efface.report.demonstration import Failure, Skipped
    from efface.wording import seconds

    if isinstance(result, Skipped):
        return [result.method, *[None] * len((*PARTS, *figures)), f"not run: {result.why}"]
    times = [seconds(result.seconds[part]) if part in result.seconds else None for part in PARTS]
    if isinstance(result, Failure):
        return [result.method, *times, *[None] * len(figures), f"failed: {result.error}"]
    scores = found.scores(result)
    values = [(figure, figure.after(scores)) for figure in figures] if scores else []
    return [
        result.method,
        *times,
        *(figure.value(value) if value else None for figure, value in values),
        "yes" if result.detached.identical else "no",
    ]
