"""`efface doctor`."""

from __future__ import annotations

import click

from efface.cli.console import Console
from efface.cli.diagnosis import diagnosed
from efface.cli.options import (
    Finite,
    command,
    device_option,
    dtype_option,
    json_option,
    pass_console,
    quiet_option,
)


@command("efface doctor", "efface doctor picturebook", "efface doctor --timeout 60 --tracebacks")
@click.argument("model", required=False)
@click.option("--timeout", type=Finite(), default=60.0, show_default=True, help="Seconds that a plugin has to load.")
@click.option("--tracebacks", is_flag=True, help="Show in full what went wrong.")
@device_option
@dtype_option
@json_option
@quiet_option
@pass_console
@click.pass_context
def doctor(
    ctx: click.Context,
    console: Console,
    model: str | None,
    timeout: float,
    tracebacks: bool,
    device: str,
    dtype: str,
) -> None:
    """Check libraries, devices and plugins, and say what is wrong.

    Each plugin is loaded in a process of its own, and its requirements are compared with what is installed. With
    MODEL, loads that too, on the device and in the precision asked for, and says which methods fit it. The exit code
    is 1 if anything is wrong.
    """
    with console.working() as progress:
        found = diagnosed(console, progress, model, timeout, device, dtype)
    console.answer(found.to_json(), found.lines(tracebacks))
    ctx.exit(1 if found.problems else 0)
