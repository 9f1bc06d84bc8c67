"""`efface compose`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from efface.cli.console import Console, table
from efface.cli.opening import read_erasures
from efface.cli.options import command, json_option, pass_console, quiet_option
from efface.cli.targets import check_target
from efface.cli.wording import becomes, size

if TYPE_CHECKING:
    from efface.erasure import Erasure


@command(
    "efface compose --erasure uce-cat.safetensors --erasure uce-dog.safetensors -o both.safetensors",
    "efface compose --erasure both.safetensors --remove dog -o cat-again.safetensors",
)
@click.option("--erasure", "files", multiple=True, required=True, help="An erasure's file; may be given several times.")
@click.option(
    "--remove", multiple=True, help="A concept to take out again, or the sha256 of an erasure in a composed one."
)
@click.option("-o", "--output", required=True, help="The file to write.")
@click.option("--force", is_flag=True, help="Overwrite the file if it is there.")
@json_option
@quiet_option
@pass_console
def compose(console: Console, files: tuple[str, ...], remove: tuple[str, ...], output: str, force: bool) -> None:
    """Make one erasure of several by one method.

    The model is not needed. A method that can solve its fits again gives what fitting them at once would have given,
    and the table says how much of the way to its anchor is left for each concept when the files are put side by side,
    and in the joint solution. A method that keeps concepts apart merges them: each is as it was fitted. Either way a
    concept comes out again by --remove.
    """
    from efface.composing import compose as composed

    target = Path(output)
    with console.working():
        check_target(target, force)
        erasure = composed(*read_erasures(files), remove=remove)
        erasure.save(target)
        console.written.append(target)
    length = target.stat().st_size
    report = erasure.header.report
    data = {"file": str(target), "bytes": length, "sha256": erasure.digest, "report": report}
    console.answer(data, [*_lines(erasure), f"{target}, {size(length)}"])


def _lines(erasure: Erasure) -> Iterator[str]:
    report = erasure.header.report
    yield from (becomes(concept, report.get("neutral anchor") or ()) for concept in erasure.concepts)
    if "composition" in report:
        yield from table(("left of the way", "side by side", "joint"), _left(report))
    else:
        yield "each concept is as it was fitted"
    if report["no longer kept"]:
        yield f"no longer kept, because they are erased: {', '.join(report['no longer kept'])}"


def _left(report: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    left = [(text, f"{each['stacked']:.4f}", f"{each['joint']:.4f}") for text, each in report["composition"].items()]
    kept = report.get("kept")
    return left + ([("(what is kept moves)", f"{kept['stacked']:.4f}", f"{kept['joint']:.4f}")] if kept else [])
