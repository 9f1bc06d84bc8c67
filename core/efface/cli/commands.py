"""efface's own commands: where each one is, imported when it is used."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

import click

from efface.errors import PluginError

COMMANDS = {
    "demo": "efface.cli.demo:demo",
    "erase": "efface.cli.erase:erase",
    "generate": "efface.cli.generate:generate",
    "compare": "efface.cli.compare:compare",
    "evaluate": "efface.cli.evaluate:evaluate",
    "sweep": "efface.cli.sweep:sweep",
    "attack": "efface.cli.attack:attack",
    "plan": "efface.cli.plan:plan",
    "compose": "efface.cli.compose:compose",
    "pin": "efface.cli.pin:pin",
    "check": "efface.cli.check:check",
    "apply": "efface.cli.apply:apply",
    "export": "efface.cli.export:export",
    "show": "efface.cli.show:show",
    "card": "efface.cli.card:card",
    "methods": "efface.cli.methods:methods",
    "points": "efface.cli.points:points",
    "plugins": "efface.cli.plugins:plugins",
    "new": "efface.cli.new:new",
    "doctor": "efface.cli.doctor:doctor",
}


def present() -> list[str]:
    """Names of the commands, less those whose module is not there."""
    return [name for name, where in COMMANDS.items() if find_spec(where.partition(":")[0])]


def command_of(name: str) -> click.Command:
    module, _, attribute = COMMANDS[name].partition(":")
    command = getattr(import_module(module), attribute)
    if not isinstance(command, click.Command):
        raise PluginError(f"{COMMANDS[name]} is no click command")
    return command
