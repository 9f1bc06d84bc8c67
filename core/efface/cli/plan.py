"""`efface plan`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from efface.cli.console import Console
from efface.cli.opening import open_model, read_erasures, strengths
from efface.cli.options import (
    command,
    json_option,
    model_argument,
    other_base_option,
    pass_console,
    quiet_option,
    scale_option,
)
from efface.errors import EffaceError
from efface_hooks.errors import HookError

if TYPE_CHECKING:
    from efface.editor import Editor
    from efface.erasure import Erasure
    from efface.planning import Plan


@command(
    "efface plan picturebook --erasure uce-cat.safetensors --erasure uce-dog.safetensors",
    "efface plan picturebook --erasure uce-cat.safetensors --strict",
)
@model_argument
@click.option("--erasure", "files", multiple=True, required=True, help="An erasure's file; may be given several times.")
@scale_option
@other_base_option
@click.option("--strict", is_flag=True, help="Exit with 1 on warnings, not only on what attaching would refuse.")
@json_option
@quiet_option
@pass_console
@click.pass_context
def plan(
    ctx: click.Context,
    console: Console,
    model: str,
    files: tuple[str, ...],
    scales: tuple[float, ...],
    allow_other_base: bool,
    strict: bool,
) -> None:
    """Say what erasures would touch, and where they meet.

    Nothing is attached. The exit code is 1 if attaching would be refused, with --strict also on warnings.
    """
    from efface.editor import Editor
    from efface.registry import Registry

    strong = strengths(scales, len(files))
    with console.working():
        erasures = read_erasures(files)
        registry = Registry.installed()
        pipe = open_model(console, model, registry)
        with Editor(pipe, allow_other_base=allow_other_base, registry=registry) as editor:
            found = planned(editor, files, erasures, strong)
    data = found.to_json()
    for entry, file in zip(data["erasures"], files, strict=True):
        entry["file"] = file
    console.answer(data, str(found).splitlines())
    ctx.exit(1 if found.refusals or (strict and found.warnings) else 0)


def planned(editor: Editor, files: Sequence[str], erasures: Sequence[Erasure], scales: Sequence[float]) -> Plan:
    """The plan; an error names the file."""
    try:
        return editor.plan(*erasures, scales=scales)
    except HookError:
        for file, erasure in zip(files, erasures, strict=True):
            try:
                editor.plan(erasure)
            except HookError as error:
                raise EffaceError(f"{file}: {error}") from error
        raise
