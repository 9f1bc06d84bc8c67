"""`efface demo`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from efface.cli.console import Console, table
from efface.cli.opening import open_model
from efface.cli.options import (
    Finite,
    command,
    device_option,
    dtype_option,
    json_option,
    model_argument,
    pass_console,
    quiet_option,
)
from efface.cli.seeds import chosen, seed_option, seeds_option
from efface.cli.targets import check_folder, check_target
from efface.concept import Concept, Kind, Request
from efface.registry import Registry

if TYPE_CHECKING:
    from efface.report.demonstration import Demonstration, Failure, Outcome
    from efface.report.prompt import Prompt

USUAL = Path("out/demo.html")


@command(
    "efface demo picturebook --concept cat --anchor fish",
    "efface demo picturebook --concept cat --anchor fish --method uce --prompt 'a cat' --scene 'a cat and a car' "
    "--control 'a dog'",
)
@model_argument
@click.option("--concept", required=True, help="What to erase.")
@click.option("--anchor", help="What it becomes.  [the model's neutral prompt]")
@click.option("--synonym", "synonyms", multiple=True, help="Another word for the concept, erased with it.")
@click.option("--kind", type=click.Choice(get_args(Kind)), default="object", show_default=True, help="What it is.")
@click.option("--keep", multiple=True, help="A prompt that methods are told to keep; may be repeated.")
@click.option("--template", "templates", multiple=True, help="A prompt with {} where concepts go.  [{}]")
@click.option("--method", "methods", multiple=True, help="A method to show; may be repeated.  [every installed one]")
@click.option("--prompt", "prompts", multiple=True, help="A prompt that names the concept.  [a picture of CONCEPT]")
@click.option("--scene", "scenes", multiple=True, help="A prompt with the concept beside something that should stay.")
@click.option("--control", "controls", multiple=True, help="A prompt whose pictures should stay as they are.")
@seed_option
@seeds_option
@click.option("--steps", type=click.IntRange(1), default=20, show_default=True, help="Denoising steps.")
@click.option("--guidance", type=Finite(), default=7.5, show_default=True, help="How closely to follow the prompt.")
@click.option("--batch-size", type=click.IntRange(1), default=8, show_default=True, help="Pictures made at once.")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=USUAL, show_default=True, help="The page.")
@click.option("--force", is_flag=True, help="Overwrite the file of -o if it is there.")
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
    concept: str,
    anchor: str | None,
    synonyms: tuple[str, ...],
    kind: Kind,
    keep: tuple[str, ...],
    templates: tuple[str, ...],
    methods: tuple[str, ...],
    prompts: tuple[str, ...],
    scenes: tuple[str, ...],
    controls: tuple[str, ...],
    seeds: tuple[int, ...],
    count: int | None,
    steps: int,
    guidance: float,
    batch_size: int,
    output: Path,
    force: bool,
    device: str,
    dtype: str,
) -> None:
    """Erase a concept live, by one method or by all, and write a page of pictures before and after.

    Every picture, number and time on the page is made in this run. A method that fails has its error on the page and
    the others go on; the exit code is 1 then.
    """
    from efface.report.demonstrating import demonstrate
    from efface.report.page import page
    from efface.report.sampling import Sampling
    from efface.report.stopwatch import Stopwatch
    from efface.writing import write

    request = Request((Concept(concept, anchor, synonyms, kind),), keep, templates or ("{}",))
    shown = _prompts(request.concepts[0], prompts, scenes, controls)
    sampling = Sampling(shown, chosen(seeds, count), steps, guidance, batch_size)
    check_folder(output.parent)
    if output.parent.is_dir():
        check_target(output, force or output == USUAL)
    with console.working() as progress:
        registry, watch = Registry.installed(), Stopwatch()
        for method in methods:
            registry.method(method)
        with watch.timing("load"):
            pipe = open_model(console, model, registry, device=device, dtype=dtype)
        found = demonstrate(
            pipe, request, sampling, methods, model=model, registry=registry, watch=watch, progress=progress
        )
        write(output, page(found).encode("utf-8", "xmlcharrefreplace"), make_folder=True)
    console.written.append(output)
    console.answer(found.to_json() | {"page": str(output)}, _lines(found, output))
    if not found.sound:
        ctx.exit(1)


def _prompts(
    concept: Concept, prompts: Sequence[str], scenes: Sequence[str], controls: Sequence[str]
) -> tuple[Prompt, ...]:
    from efface.report.prompt import Prompt

    neutral = f"a picture in the style of {concept.text}" if concept.kind == "style" else f"a picture of {concept.text}"
    return (
        *(Prompt(text, "concept") for text in prompts or ([] if scenes else [neutral])),
        *(Prompt(text, "scene") for text in scenes),
        *(Prompt(text, "control") for text in controls),
    )


def _lines(found: Demonstration, output: Path) -> Iterator[str]:
    from efface.report.wording import seconds

    parts = ("fit", "attach", "edited images", "detach")
    rows = [
        (one.method, *(seconds(one.seconds[part]) if part in one.seconds else None for part in parts), _end(one))
        for one in found.results
    ]
    yield from table(("method", *parts, "detached: bit-identical"), rows)
    yield ", ".join(f"{part} {seconds(time)}" for part, time in found.seconds.items())
    yield str(output)


def _end(result: Outcome | Failure) -> str:
    from efface.report.demonstration import Failure

    if isinstance(result, Failure):
        return f"failed: {result.error}"
    return "yes" if result.detached.identical else "no"
