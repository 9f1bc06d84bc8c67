"""`efface erase`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from efface.cli.console import Console
from efface.cli.launched import shared
from efface.cli.opening import open_model
from efface.cli.options import (
    Seed,
    command,
    device_option,
    dtype_option,
    json_option,
    model_argument,
    pairs,
    pass_console,
    quiet_option,
)
from efface.cli.targets import check_folder, check_target
from efface.cli.wording import becomes, counted, origin, size, slug
from efface.concept import Concept, Kind, Request
from efface.concept_list import read_concepts
from efface.errors import BadConcept
from efface_hooks.errors import listed

if TYPE_CHECKING:
    from efface.erasure import Erasure

SHOWN = 10


@command(
    "efface erase picturebook --concept cat --anchor dog --method uce",
    "efface erase picturebook --concept cat --keep 'a dog' --method uce --set lamb=0.1 -o cat.safetensors",
    "efface erase picturebook --concepts concepts.csv --method uce --checkpoints state",
)
@model_argument
@click.option("--concept", "texts", multiple=True, help="What to erase; several are erased together.")
@click.option("--concepts", "table", metavar="FILE", help="A CSV file: concept, anchor, synonyms (a; b), kind.")
@click.option("--anchor", help="What it becomes.  [the model's neutral prompt]")
@click.option("--synonym", "synonyms", multiple=True, help="Other words for the concept, erased with it.")
@click.option("--kind", type=click.Choice(get_args(Kind)), help="What it is.  [object]")
@click.option("--keep", multiple=True, help="A prompt whose meaning stays; may be given several times.")
@click.option("--template", "templates", multiple=True, help="A prompt with {} where concepts go.  [{}]")
@click.option("--method", required=True, help="How to erase; see: efface methods.")
@click.option("--preset", help="A named set of the method's settings.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="One of the method's settings.")
@click.option("--seed", type=Seed(), default=0, show_default=True, help="Seed of the fit.")
@click.option("-o", "--output", help="The file to write.  [METHOD-CONCEPT.safetensors]")
@click.option("--force", is_flag=True, help="Overwrite the file if it is there.")
@click.option("--checkpoints", metavar="FOLDER", help="Where a long fit keeps its state, to go on after a break.")
@device_option
@dtype_option
@json_option
@quiet_option
@pass_console
def erase(
    console: Console,
    model: str,
    texts: tuple[str, ...],
    table: str | None,
    anchor: str | None,
    synonyms: tuple[str, ...],
    kind: Kind | None,
    keep: tuple[str, ...],
    templates: tuple[str, ...],
    method: str,
    preset: str | None,
    settings: tuple[str, ...],
    seed: int,
    output: str | None,
    force: bool,
    checkpoints: str | None,
    device: str,
    dtype: str,
) -> None:
    """Erase concepts from a model and write the erasure to a file.

    The model itself stays as it is; `efface generate` and `efface.Editor` put the erasure on it.
    """
    from efface.erasing import erase as fitted
    from efface.registry import Registry
    from efface.settings import build
    from efface.settings import preset as preset_of

    request = Request(_concepts(texts, table, anchor, synonyms, kind), keep, templates or ("{}",))
    given = pairs(settings)
    with shared(console) as processes, console.working() as progress:
        registry = Registry.installed()
        cls = registry.method(method)
        chosen = build(cls, (preset_of(cls, preset) if preset else {}) | given)
        what = texts[0] if texts else Path(table or "").stem
        target = Path(output or f"{cls.name}-{slug(what, 'concept')}.safetensors")
        if processes.rank == 0:
            check_target(target, force)
        folder = _checkpoints(console, checkpoints)
        pipe = open_model(console, model, registry, device=processes.device(device), dtype=dtype)
        started = time.perf_counter()
        erasure = fitted(
            pipe,
            request.concepts,
            method=chosen,
            keep=request.keep,
            templates=request.templates,
            seed=seed,
            progress=progress,
            folder=folder,
            processes=processes,
            registry=registry,
        )
        seconds = time.perf_counter() - started
        if processes.rank > 0:
            return
        erasure.save(target)
        console.written.append(target)
    length = target.stat().st_size
    console.answer(
        {"file": str(target), "bytes": length, "seconds": round(seconds, 2), **_in_short(erasure)},
        [*_lines(erasure, seconds), f"{target}, {size(length)}"],
    )


def _concepts(
    texts: Sequence[str], table: str | None, anchor: str | None, synonyms: Sequence[str], kind: Kind | None
) -> tuple[Concept, ...]:
    """What is to be erased, checked before a model is loaded for it."""
    if not texts and table is None:
        raise click.UsageError("Give --concept TEXT, or --concepts FILE for a table of them")
    if not texts:
        _check_for_table({"--anchor": anchor, "--synonym": synonyms, "--kind": kind})
    if synonyms and len(texts) != 1:
        raise BadConcept(f"--synonym belongs to one --concept, and here are {len(texts)}; erase them one by one")
    each = tuple(Concept(text, anchor, tuple(synonyms), kind or "object") for text in texts)
    return each + (read_concepts(table) if table is not None else ())


def _check_for_table(options: Mapping[str, object]) -> None:
    """What only goes with --concept has a column in a table."""
    for name, given in options.items():
        if given is not None and given != ():
            column = "synonyms" if name == "--synonym" else name.removeprefix("--")
            raise click.UsageError(f"{name} goes with --concept TEXT; the table of --concepts has a column {column!r}")


def _checkpoints(console: Console, name: str | None) -> Path | None:
    """The folder for checkpoints, made if it is not there."""
    if name is None:
        return None
    folder = Path(name)
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    console.written.append(folder)
    return folder


def _in_short(erasure: Erasure) -> dict[str, Any]:
    """The header without what only a program needs; `efface show --json` has all of it."""
    return {name: value for name, value in erasure.to_dict().items() if name not in ("base", "facts", "tensors")}


def _lines(erasure: Erasure, seconds: float) -> Iterator[str]:
    header = erasure.header
    yield from (becomes(concept, header.report.get("neutral anchor") or ()) for concept in erasure.concepts[:SHOWN])
    if len(erasure.concepts) > SHOWN:
        yield f"and {len(erasure.concepts) - SHOWN} more"
    touched = f"{counted(len(header.points), 'point')} touched ({listed(header.points, 3)})"
    yield f"{header.method} {origin(header.distribution, header.version)}: {touched}, {seconds:.1f} s"
