"""Commands that several processes run together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from efface.cli.console import Console
from efface.processes import Processes, launched
from efface_hooks.errors import HookError


@contextmanager
def shared(console: Console) -> Iterator[Processes]:
    """The processes that run this command; all but the first are silent, and leave what is wrong for it to say."""
    try:
        with launched() as processes:
            console.silent = processes.rank > 0
            yield processes
    except (HookError, OSError, click.ClickException):
        if console.silent:
            raise click.exceptions.Exit(0) from None
        raise
