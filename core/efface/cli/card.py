"""`efface card`."""

from __future__ import annotations

from pathlib import Path

import click

from efface.cli.console import Console
from efface.cli.options import command, json_option, pass_console
from efface.cli.targets import check_target


@command(
    "efface card uce-cat.safetensors --base-model owner/name",
    "efface card uce-cat.safetensors --figures figures.json -o README.md",
)
@click.argument("file")
@click.option("--base-model", metavar="ID", help="Hub id of the model that it was made for.")
@click.option("--figures", metavar="FILE", help="What efface evaluate --json printed for it.")
@click.option("-o", "--output", default="README.md", show_default=True, help="The file to write.")
@click.option("--force", is_flag=True, help="Overwrite the file if it is there.")
@json_option
@pass_console
def card(console: Console, file: str, base_model: str | None, figures: str | None, output: str, force: bool) -> None:
    """Write the page that a hub shows for an erasure.

    Base model, concepts, method, settings, figures and limits, as Markdown with the hub's head.
    """
    from efface.card import card as page
    from efface.header import strict_json
    from efface.writing import write

    target = Path(output)
    check_target(target, force)
    with console.working():
        found = strict_json(Path(figures).read_bytes(), figures) if figures else None
        text = page(file, base=base_model, figures=found)
        write(target, text.encode())
    if base_model is None:
        console.warn(
            f"{target} names no base model, so that a hub lists it under none and its code needs the model filled in; "
            "--base-model OWNER/NAME gives it"
        )
    console.answer({"file": str(target)}, [str(target)])
