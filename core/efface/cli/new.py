"""`efface new`."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click

from efface.cli.console import Console
from efface.cli.options import command, json_option, pass_console
from efface.cli.scaffold import Kind, Scaffold, check_name


@command("efface new my-method", "efface new my-method --kind trained --output plugins/my-method")
@click.argument("name")
@click.option(
    "--kind",
    type=click.Choice(get_args(Kind)),
    default="weights",
    show_default=True,
    help="What the method is made of: a closed form, a hook with fitted tensors, or a training.",
)
@click.option("-o", "--output", metavar="FOLDER", help="The folder to make.  [NAME]")
@json_option
@pass_console
def new(console: Console, name: str, kind: Kind, output: str | None) -> None:
    """Write a plugin of your own with the method NAME.

    It can be installed and tested at once. It works as it is: replace the body of its method by yours.
    """
    from efface.registry import Registry

    with console.working():
        check_name(name, Registry.installed())
        scaffold, folder = Scaffold(name, kind), Path(output or name)
        scaffold.write(folder)
    paths = [str(folder / path) for path in scaffold.files()]
    data = {"name": name, "kind": kind, "distribution": scaffold.distribution, "folder": str(folder), "files": paths}
    console.answer(data, [*paths, "", f"Next: pip install --editable '{folder}[test]' && pytest {folder}"])
