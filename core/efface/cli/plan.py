"""`efface plan`."""

from __future__ import annotations

import click

from efface.cli.console import Console
from efface.cli.opening import erasures_on, open_model, read_erasures, strengths
from efface.cli.options import (
    command,
    json_option,
    model_argument,
    other_base_option,
    pass_console,
    quiet_option,
    scale_option,
)


@command("efface plan picturebook --erasure uce-cat.safetensors --erasure uce-dog.safetensors")
@model_argument
@click.option("--erasure", "files", multiple=True, required=True, help="An erasure's file; may be given several times.")
@scale_option
@other_base_option
@json_option
@quiet_option
@pass_console
def plan(
    console: Console, model: str, files: tuple[str, ...], scales: tuple[float, ...], allow_other_base: bool
) -> None:
    """Say what erasures would touch on a model and where they meet."""
    from efface.registry import Registry

    strong = strengths(scales, len(files))
    with console.working():
        erasures = read_erasures(files)
        registry = Registry.installed()
        pipe = open_model(console, model, registry)
        with erasures_on(pipe, files, erasures, strong, registry=registry, allow_other_base=allow_other_base) as editor:
            found = editor.plan()
    data = found.to_json()
    for entry, file in zip(data["erasures"], files, strict=True):
        entry["file"] = file
    console.answer(data, str(found).splitlines())
