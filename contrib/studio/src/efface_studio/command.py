"""`efface studio`."""

from __future__ import annotations

from pathlib import Path

import click

import efface
from efface.cli.options import command

LOCAL = "127.0.0.1"


@command("efface studio picturebook", "efface studio picturebook --port 7870 --folder out/mine")
@click.argument("model", required=False)
@click.option("--port", type=click.IntRange(1, 65535), default=7860, show_default=True, help="Where the page is.")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("out/studio"),
    show_default=True,
    help="Where erasures and the policy file are saved.",
)
@click.option("--browser/--no-browser", default=True, help="Open the page in a browser.")
def studio(model: str | None, port: int, folder: Path, browser: bool) -> None:
    """Open a page in the browser to erase, compare, switch and save.

    MODEL is the first installed one unless given. The page is served on this machine alone.
    """
    from efface_studio.app import serve
    from efface_studio.session import Session

    session = Session(model or first(), folder)
    click.echo(f"http://{LOCAL}:{port}")
    serve(session, host=LOCAL, port=port, browser=browser)


def first() -> str:
    """The first model that a plugin brings."""
    models = efface.Registry.installed().models()
    if not models:
        raise click.UsageError("No plugin brings a model: name a folder, a file or a hub id")
    return next(iter(models))
