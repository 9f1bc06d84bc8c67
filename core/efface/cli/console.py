"""Where a command writes: data to stdout; progress, warnings and whatever libraries say to stderr."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from efface.cli.bar import Bar

if TYPE_CHECKING:
    from efface.devices import Offload

CHATTY = {
    "transformers": "TRANSFORMERS_VERBOSITY",
    "diffusers": "DIFFUSERS_VERBOSITY",
    "huggingface_hub": "HF_HUB_VERBOSITY",
}


class Console:
    """One command's ways to speak, and what it has to say for itself when it is interrupted.

    A command notes in `written` the files and folders that it leaves behind even so. `config` and `offload` say how
    the model is to be loaded. A `silent` one, of a process that leaves the talking to another, shows nothing.
    """

    def __init__(self, debug: bool = False) -> None:
        self.debug = debug
        self.json = False
        self.quiet = False
        self.silent = False
        self.config: str | None = None
        self.offload: Offload | None = None
        self.written: list[Path] = []

    @property
    def shows_progress(self) -> bool:
        return not (self.quiet or self.silent) and sys.stderr.isatty()

    def answer(self, data: Any, lines: Iterable[str]) -> None:
        """The result: `data` if JSON was asked for, else the lines."""
        if self.silent:
            return
        if self.json:
            click.echo(json.dumps(data, indent=2, allow_nan=False))
            return
        for line in lines:
            click.echo(printable(line).rstrip())

    def warn(self, text: str) -> None:
        if not self.silent:
            click.echo(f"Warning: {printable(' '.join(text.split()))}", err=True)

    def note(self, text: str) -> None:
        """Something good to know, unless nothing is to be shown but the answer."""
        if not (self.quiet or self.silent):
            click.echo(printable(text), err=True)

    @contextmanager
    def working(self) -> Iterator[Bar]:
        """For everything that takes time or runs foreign code: nothing inside gets to stdout.

        Gives the progress to pass on. What big libraries advise below the level of an error is left out.
        """
        with redirect_stdout(sys.stderr), Bar(self.shows_progress) as bar, ExitStack() as stack:
            if not self.debug:
                for library, variable in CHATTY.items():
                    stack.enter_context(_errors_only(library, variable))
            yield bar

    def interrupted(self) -> str:
        left = [str(path) for path in self.written if path.is_file() or (path.is_dir() and any(path.iterdir()))]
        return f"Interrupted; {'written: ' + ', '.join(left) if left else 'nothing was written'}"


def printable(text: str) -> str:
    """The text with everything escaped that a terminal would obey instead of show."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def table(heads: Sequence[str], rows: Iterable[Sequence[object]], indent: str = "") -> list[str]:
    """Aligned columns under their heads, numbers to the right; None is shown as a dash."""
    columns = [_column(head, cells) for head, cells in zip(heads, zip(*rows, strict=True), strict=False)]
    return [(indent + "  ".join(line)).rstrip() for line in zip(*columns, strict=True)]


def _column(head: str, cells: Sequence[object]) -> list[str]:
    texts = [head, *("-" if cell is None else printable(str(cell)) for cell in cells)]
    width = max(map(len, texts))
    numbers = any(isinstance(cell, int | float) and not isinstance(cell, bool) for cell in cells)
    return [text.rjust(width) if numbers else text.ljust(width) for text in texts]


@contextmanager
def _errors_only(library: str, variable: str) -> Iterator[None]:
    """A library's log at the level of errors, whether it is imported already or will be; a user's own wish stands."""
    if variable in os.environ:
        yield
        return
    logger = logging.getLogger(library)
    level = logger.level
    os.environ[variable] = "error"
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        del os.environ[variable]
        logger.setLevel(level)
