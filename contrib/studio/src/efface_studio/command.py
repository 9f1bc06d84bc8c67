"""`efface studio`."""

from __future__ import annotations

from pathlib import Path

import click

LOCAL = "127.0.0.1"


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nExamples:\n  efface studio picturebook\n  efface studio picturebook --port 7870 --folder out/mine",
)
@click.argument("model", default="picturebook")
@click.option("--port", type=click.IntRange(1, 65535), default=7860, show_default=True, help="Where the page is.")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("out/studio"),
    show_default=True,
    help="Where erasures and the policy file are saved.",
)
@click.option("--browser/--no-browser", default=True, help="Open the page in a browser.")
def studio(model: str, port: int, folder: Path, browser: bool) -> None:
    """Open a page in the browser to erase from MODEL, and to compare, switch and save erasures.

    The page is served on this machine alone.
    """
    from efface_studio.app import serve
    from efface_studio.session import Session

    session = Session(model, folder)
    click.echo(f"http://{LOCAL}:{port}")
    serve(session, host=LOCAL, port=port, browser=browser)
