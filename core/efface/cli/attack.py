"""`efface attack`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from efface.cli.console import Console, table
from efface.cli.opening import erasures_on, judge_of, open_model, read_erasures, strengths
from efface.cli.options import (
    Seed,
    command,
    device_option,
    dtype_option,
    json_option,
    model_argument,
    other_base_option,
    pairs,
    pass_console,
    quiet_option,
    sampling_options,
    scale_option,
    suite_options,
)
from efface.cli.seeds import chosen
from efface.cli.targets import check_target
from efface.errors import EffaceError, unknown

if TYPE_CHECKING:
    from efface.attack import Attack
    from efface.erasure import Erasure
    from efface.evaluation.scores import Estimate
    from efface.model import Model
    from efface.registry import Registry
    from efface.suite import Suite


@command(
    "efface attack picturebook --erasure uce-cat.safetensors",
    "efface attack picturebook --erasure uce-cat.safetensors --by substitution --set rounds=80 -o attack.json",
)
@model_argument
@click.option(
    "--erasure", "files", multiple=True, required=True, help="An erasure's file; several go on in this order."
)
@scale_option
@click.option("--concept", help="What to bring back.  [the first erased one]")
@click.option("--by", "searches", multiple=True, help="inversion or substitution; may be repeated.  [both]")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="One of the search's settings.")
@suite_options
@click.option("--template", help="A prompt with {} where the concept goes.  [the suite's first]")
@click.option("--seed", type=Seed(), default=0, show_default=True, help="Seed of the search.")
@click.option("--seeds", "count", type=click.IntRange(1), default=20, show_default=True, help="Pictures of each sort.")
@sampling_options(steps=15, guidance=None, batch_size=10)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write what was found to this file, as JSON.")
@click.option("--force", is_flag=True, help="Overwrite the file of -o if it is there.")
@other_base_option
@device_option
@dtype_option
@json_option
@quiet_option
@pass_console
def attack(
    console: Console,
    model: str,
    files: tuple[str, ...],
    scales: tuple[float, ...],
    concept: str | None,
    searches: tuple[str, ...],
    settings: tuple[str, ...],
    suite: str | None,
    suite_settings: tuple[str, ...],
    template: str | None,
    seed: int,
    count: int,
    steps: int,
    guidance: float | None,
    batch_size: int,
    output: Path | None,
    force: bool,
    allow_other_base: bool,
    device: str,
    dtype: str,
) -> None:
    """Search for inputs that bring an erased concept back.

    The search knows the weights, the erasures and what the concept looks like. Inversion learns new words, substitution
    looks for words to put before the prompt. The suite says in how many pictures the concept is back.
    """
    from efface.attack import SEARCHES, search_of, template_for
    from efface.attack import attack as attacked
    from efface.model import Model
    from efface.registry import Registry
    from efface.writing import write

    if settings and len(searches) != 1:
        raise click.UsageError("--set is for one search: name it by --by")
    wanted = [search_of(name, pairs(settings)) for name in searches or SEARCHES]
    if output is not None:
        check_target(output, force)
    with console.working() as progress:
        erasures, registry = read_erasures(files), Registry.installed()
        what = _erased(erasures, concept)
        if template is not None:
            template_for(what, template, None)
        judge = None if suite is None else judge_of(console, registry, suite, suite_settings)
        strong = strengths(scales, len(files))
        pipe = open_model(console, model, registry, device=device, dtype=dtype)
        reader = Model(pipe, registry)
        judge = _ready(judge, registry, reader, model)
        shape = template_for(what, template, judge)
        for search in wanted:
            search.check(reader, what, shape)
        with erasures_on(pipe, files, erasures, strong, registry=registry, allow_other_base=allow_other_base):
            found = [
                attacked(
                    pipe,
                    what,
                    search=search,
                    template=shape,
                    suite=judge,
                    seeds=chosen((), count),
                    seed=seed,
                    steps=steps,
                    guidance=guidance,
                    batch_size=batch_size,
                    model=model,
                    progress=progress,
                )
                for search in wanted
            ]
        data = [one.to_json() for one in found]
        if output is not None:
            write(output, json.dumps(data, indent=2, allow_nan=False).encode() + b"\n")
    shown = _lines(found) if judge is not None else _unjudged(found, model, registry)
    console.answer(data, [*shown, *([str(output)] if output else [])])


def _erased(erasures: Sequence[Erasure], concept: str | None) -> str:
    texts = [one.text for erasure in erasures for one in erasure.concepts]
    if concept is not None and concept not in texts:
        raise EffaceError(unknown("concept", concept, texts, "these files erase"))
    return concept or texts[0]


def _ready(named: Suite | None, registry: Registry, reader: Model, model: str) -> Suite | None:
    """The named suite where it accepts the model, else the first installed one that does, if any."""
    from efface.evaluation.evaluating import check_accepts

    if named is not None:
        check_accepts(named, reader, model)
        return named
    found = registry.suite_for(reader)
    if found is not None:
        found.prepare()
    return found


def _lines(found: Sequence[Attack]) -> Iterator[str]:
    heads = ("attack", "concept", "before", "erased", "attacked", "attacked, not erased", "loss", "prompt")
    shares = [map(_share, (one.base, one.erased, one.success, one.upper)) for one in found]
    yield from table(
        heads, [(one.search.name, one.concept, *each, *_found(one)) for one, each in zip(found, shares, strict=True)]
    )
    yield "Shares of pictures that show the concept, with 95 % intervals."


def _unjudged(found: Sequence[Attack], model: str, registry: Registry) -> Iterator[str]:
    from efface.evaluation.evaluating import installed

    yield from table(
        ("attack", "concept", "loss", "prompt"), [(one.search.name, one.concept, *_found(one)) for one in found]
    )
    yield f"No suite accepts {model}, so nobody judged its pictures; name one by --suite ({installed(registry)})."


def _found(one: Attack) -> tuple[str, str]:
    return f"{_mean(one.found.losses[:10]):.4f} -> {_mean(one.found.losses[-10:]):.4f}", one.found.prompt


def _share(share: Estimate | None) -> str | None:
    return None if share is None else f"{share.value:.0%} ({share.low:.0%} to {share.high:.0%})"


def _mean(losses: Sequence[float]) -> float:
    return sum(losses) / len(losses)
