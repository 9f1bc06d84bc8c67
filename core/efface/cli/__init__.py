"""The command line: `efface`, one file per command."""

from __future__ import annotations

import io
import sys


def main() -> None:
    """Run the command line on this process's arguments and exit."""
    from efface.cli.group import efface

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    efface(prog_name="efface")
