"""`efface plugins`."""

from __future__ import annotations

from dataclasses import asdict

from efface.cli.console import Console, table
from efface.cli.options import command, json_option, pass_console
from efface.cli.requirements import unmet
from efface.registry import Registry


@command("efface plugins", "efface plugins --json")
@json_option
@pass_console
def plugins(console: Console) -> None:
    """List the installed plugins, from their metadata alone.

    Nothing is imported: `efface doctor` says whether they work.
    """
    found = {one: unmet(one.distribution) for one in Registry.installed().plugins()}
    rows = [
        (one.name, one.distribution, one.version, one.module, "disabled" if one.disabled else "", one.summary)
        for one in found
    ]
    lines = table(("plugin", "distribution", "version", "module", "", "summary"), rows)
    for one, faults in found.items():
        for fault in faults:
            console.warn(f"plugin {one.name} {fault}; see efface doctor")
    data = [asdict(one) | {"unmet": faults} for one, faults in found.items()]
    console.answer(data, lines if found else ["No plugins are installed."])
