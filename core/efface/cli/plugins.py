"""`efface plugins`."""

from __future__ import annotations

from dataclasses import asdict

from efface.cli.console import Console, table
from efface.cli.options import command, json_option, pass_console
from efface.registry import Registry


@command("efface plugins", "efface plugins --json")
@json_option
@pass_console
def plugins(console: Console) -> None:
    """List the installed plugins, from their metadata alone.

    Nothing is imported: `efface doctor` says whether they work.
    """
    found = Registry.installed().plugins()
    rows = [
        (one.name, one.distribution, one.version, one.module, "disabled" if one.disabled else "", one.summary)
        for one in found
    ]
    lines = table(("plugin", "distribution", "version", "module", "", "summary"), rows)
    console.answer([asdict(one) for one in found], lines if found else ["No plugins are installed."])
