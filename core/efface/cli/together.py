"""`efface demo --compose`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from efface.cli.console import Console, table
from efface.cli.opening import open_model
from efface.cli.seeds import chosen
from efface.cli.targets import check_folder, check_target

if TYPE_CHECKING:
    from efface.evaluation.scores import Estimate
    from efface.report.stacked import Order, Stacked

USUAL = Path("out/compose.html")
LONGER = 3
OF_ONE_CONCEPT = (
    *("concept", "anchor", "synonyms", "kind", "keep", "templates"),
    *("prompts", "scenes", "controls", "picture"),
)


def together(ctx: click.Context, console: Console) -> None:
    """Several concepts erased by several methods on one pipeline, with the options of `efface demo`."""
    from efface.errors import UnknownSuite
    from efface.model import Model
    from efface.registry import Registry
    from efface.report.budget import Budget
    from efface.report.page import stack_page
    from efface.report.sampling import Sampling
    from efface.report.stacking import Figures, stack
    from efface.report.stopwatch import Stopwatch
    from efface.writing import write

    given = ctx.params
    _refuse_others(ctx)
    output = _output(ctx)
    wanted = chosen(given["seeds"], given["count"])
    with console.working() as progress:
        registry, watch = Registry.installed(), Stopwatch()
        for method in given["methods"]:
            registry.method(method)
        with watch.timing("load"):
            pipe = open_model(console, given["model"], registry, device=given["device"], dtype=given["dtype"])
        suite = registry.suite_for(Model(pipe, registry))
        if suite is None:
            raise UnknownSuite(f"No suite accepts {given['model']}, so nobody says what to erase together")
        strength = suite.guidance if given["guidance"] is None else given["guidance"]
        found = stack(
            pipe,
            suite,
            Sampling((), wanted, given["steps"], strength, given["batch_size"]),
            given["methods"],
            model=given["model"],
            registry=registry,
            budget=Budget(given["budget"] * (1 if _is_given(ctx, "budget") else LONGER), given["refit"]),
            figures=None if given["no_figures"] else Figures(),
            unmeasured="--no-figures left them out" if given["no_figures"] else "",
            watch=watch,
            progress=progress,
        )
        write(output, stack_page(found).encode("utf-8", "xmlcharrefreplace"), make_folder=True)
        console.written.append(output)
    console.answer(found.to_json() | {"page": str(output)}, [*_lines(found), str(output)])
    if not found.sound:
        ctx.exit(1)


def _refuse_others(ctx: click.Context) -> None:
    named = [param for param in ctx.command.params if param.name in OF_ONE_CONCEPT and _is_given(ctx, param.name)]
    if named:
        options = ", ".join(param.opts[0] for param in named)
        raise click.UsageError(f"With --compose the suite says what is erased and shown: leave out {options}")


def _is_given(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is not ParameterSource.DEFAULT


def _output(ctx: click.Context) -> Path:
    """The page's file, checked; the usual one may be overwritten."""
    named: Path = ctx.params["output"]
    output = named if _is_given(ctx, "output") else USUAL
    check_folder(output.parent)
    if output.parent.is_dir():
        check_target(output, ctx.params["force"] or output == USUAL)
    return output


def _lines(found: Stacked) -> Iterator[str]:
    """The erasures with what is shown alone and together, the orders, how it ended."""
    from efface.wording import seconds

    rows = []
    for part in found.parts:
        alone, stacked = found.scores(part)
        fit = f"file {part.file}" if part.file else seconds(part.seconds)
        shown = (_percent(alone.efficacy if alone else None), _percent(stacked.efficacy if stacked else None))
        rows.append((part.label, part.concept.anchor or "nothing", fit, *shown))
    yield from table(("erasure", "becomes", "fit", "shown, alone", "shown, together"), rows)
    for concept, why in found.failures.items():
        yield f"{concept} is not erased: {why}"
    for method, why in found.missing.items():
        yield f"{method} has no part: {why}"
    yield f"all other concepts lost {_percent(found.lost) or 'not measured'}"
    yield from map(_ordered, found.orders)
    exact = found.detached.identical and all(one.identical for one in found.removals)
    yield f"taken off in a random order, bit-identical after each step and at the end: {'yes' if exact else 'no'}"
    yield ", ".join(f"{part} {seconds(time)}" for part, time in found.seconds.items())


def _ordered(order: Order) -> str:
    found = "bit-identical latents"
    if not order.identical:
        shown = "not measured" if order.most_shown is None else f"shown at most {100 * order.most_shown:.0f} %"
        found = f"other latents: {shown}, all other concepts lost {_percent(order.lost) or 'not measured'}"
    return f"in the order {', '.join(order.labels)}: {found}"


def _percent(found: Estimate | None) -> str | None:
    return None if found is None else f"{100 * found.value:.1f} %"
