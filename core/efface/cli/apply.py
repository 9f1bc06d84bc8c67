"""`efface apply`."""

from __future__ import annotations

from pathlib import Path

import click

from efface.cli.console import Console
from efface.cli.opening import bars, open_model
from efface.cli.options import command, dtype_option, json_option, pass_console, quiet_option
from efface.cli.targets import check_folder
from efface.cli.wording import counted
from efface.errors import CannotSave


@command("efface apply efface.toml -o erased")
@click.argument("policy")
@click.option("-o", "--output", required=True, metavar="FOLDER", help="The folder to write; it must not be there yet.")
@dtype_option
@json_option
@quiet_option
@pass_console
def apply(console: Console, policy: str, output: str, dtype: str) -> None:
    """Write a pipeline with a POLICY's erasures in its weights.

    Any diffusers program can load the folder, without efface. What is not as pinned, and an erasure that no weights
    can hold, is refused by name before anything is written.
    """
    from efface.policy import Policy, bake
    from efface.policy import apply as applied
    from efface.registry import Registry

    target = Path(output)
    with console.working():
        wanted = Policy.load(policy)
        if target.exists():
            raise CannotSave(f"{target} is there already; choose another name")
        check_folder(target.parent)
        registry = Registry.installed()
        pipe = open_model(console, str(wanted.source), registry, dtype=dtype)
        with applied(pipe, wanted, registry=registry) as editor:
            labels = [entry.label for entry in editor.entries]
            with bars(console.shows_progress):
                bake(editor, target)
        console.written.append(target)
    data = {"folder": str(target), "model": wanted.model, "erasures": labels}
    console.answer(data, [f"{target}: {wanted.model} with {counted(len(labels), 'erasure')} in its weights"])
