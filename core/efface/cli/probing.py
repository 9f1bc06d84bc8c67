"""What `efface doctor` runs in a process of its own: load one plugin or command and say what it brings.

Arguments are a group and a value of an entry point. The answer is JSON on stdout, and nothing else gets there.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from typing import Any

Answer = dict[str, Any]


def probe(group: str, value: str) -> Answer:
    """The names of the methods, models and commands behind an entry point, and each thing that went wrong."""
    from efface.registry import GROUP

    try:
        loaded = EntryPoint("probed", value, group).load()
        return _plugin(loaded) if group == GROUP else _command(loaded)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plugin may well call sys.exit() when it is imported
        line = traceback.format_exception_only(error)[-1].strip()
        return {"faults": [_fault("import", line, traceback.format_exc())]}


def _plugin(plugin: object) -> Answer:
    from efface.registry import Registry

    registry = Registry([plugin])
    faults = [_fault(broken.during, broken.error, broken.traceback) for broken in registry.broken]
    return {
        "methods": list(registry.methods()),
        "models": list(registry.models()),
        "suites": list(registry.suites()),
        "deprecated": list(_deprecated(plugin)),
        "faults": faults,
    }


def _deprecated(plugin: object) -> Iterator[str]:
    """What there is to say about each hook of the plugin that is on its way out."""
    from efface import hookspecs

    for name, spec in vars(hookspecs).items():
        warning = getattr(spec, f"{hookspecs.PROJECT}_spec", {}).get("warn_on_impl")
        if warning is not None and hasattr(plugin, name):
            yield f"{name}: {warning}"


def _command(command: object) -> Answer:
    import click

    if isinstance(command, click.Command):
        return {"faults": []}
    return {"faults": [_fault("import", f"{command!r} is no click command", "")]}


def _fault(during: str, error: str, trace: str) -> dict[str, str]:
    return {"during": during, "error": " ".join(error.split()), "traceback": trace}


def main() -> None:
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as answer:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        json.dump(probe(*sys.argv[1:]), answer)


if __name__ == "__main__":
    main()
