"""Everything `efface doctor` looks at, and what of it is wrong."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from efface.cli import extensions
from efface.cli.bar import Bar
from efface.cli.checkup import Checkup, checkup
from efface.cli.commands import COMMANDS
from efface.cli.console import Console, table
from efface.cli.fitness import Fitness
from efface.cli.machine import Machine
from efface.cli.wording import counted
from efface.registry import DISABLE, GROUP, PluginInfo, Registry, advertised


@dataclass(frozen=True)
class Diagnosis:
    """The machine, every plugin, every command of a plugin, and the model if one was asked about."""

    machine: Machine
    plugins: tuple[Checkup, ...]
    commands: tuple[Checkup, ...]
    fitness: Fitness | None = None

    @property
    def problems(self) -> list[str]:
        faults = [
            f"{what} {one.plugin.name} ({one.plugin.distribution}): {fault.during}: {fault.error}"
            for what, checkups in (("plugin", self.plugins), ("command", self.commands))
            for one in checkups
            for fault in one.faults
        ]
        model = [f"model {self.fitness.model}: {self.fitness.fault}"] if self.fitness and self.fitness.fault else []
        return [*self.machine.problems, *faults, *self._unreachable(), *model]

    @property
    def notes(self) -> list[str]:
        """What is no fault, but good to know: names of several things, hooks that will go, methods that do not fit."""
        found = []
        for what in ("method", "model", "suite"):
            brought = [(name, one.plugin) for one in self.plugins for name in getattr(one, f"{what}s")]
            for name, owners in _shared(brought):
                found.append(f"several plugins bring a {what} {name}: name it DISTRIBUTION:{name} ({owners})")
        found += [f"plugin {one.plugin.name}: deprecated: {hook}" for one in self.plugins for hook in one.deprecated]
        return found + (self.fitness.notes if self.fitness else [])

    def to_json(self) -> dict[str, Any]:
        return {
            "ok": not self.problems,
            "problems": self.problems,
            "notes": self.notes,
            **asdict(self.machine),
            "plugins": [one.to_json() for one in self.plugins],
            "commands": [one.to_json() for one in self.commands],
            "model": self.fitness and self.fitness.to_json(),
        }

    def lines(self, tracebacks: bool) -> Iterator[str]:
        yield from self.machine.lines()
        for what, checkups in (("plugin", self.plugins), ("command", self.commands)):
            yield from _listed(what, checkups)
        if self.fitness is not None:
            yield ""
            yield from self.fitness.lines()
        for one in (*self.plugins, *self.commands) if tracebacks else ():
            for fault in one.faults:
                yield from ("", f"{one.plugin.name}, {fault.during}:", *fault.traceback.splitlines())
        yield ""
        yield from (f"note: {note}" for note in self.notes)
        yield f"{counted(len(self.problems), 'problem')}:" if self.problems else "Nothing is wrong."
        yield from (f"  {problem}" for problem in self.problems)

    def _unreachable(self) -> Iterator[str]:
        """Commands that their name keeps from being used."""
        active = [one.plugin for one in self.commands if not one.plugin.disabled]
        for plugin in active:
            if plugin.name in COMMANDS:
                yield f"command {plugin.name} ({plugin.distribution}): efface has a command of this name itself"
        for name, owners in _shared([(plugin.name, plugin) for plugin in active]):
            yield f"command {name}: several plugins bring it ({owners}); leave out all but one of them"


def diagnosed(console: Console, progress: Bar, model: str | None, limit: float, device: str, dtype: str) -> Diagnosis:
    """Looks at everything; each plugin has `limit` seconds to load, and the model is loaded on device in dtype."""
    jobs = [(one, GROUP) for one in Registry.installed().plugins()]
    jobs += [(one, extensions.GROUP) for one in advertised(extensions.GROUP)]
    done: dict[str, list[Checkup]] = {GROUP: [], extensions.GROUP: []}
    for position, (plugin, group) in enumerate(jobs):
        progress(position, len(jobs), f"loading {plugin.name}")
        done[group].append(checkup(plugin, group, limit))
    machine = Machine.this()
    plugins = tuple(done[GROUP])
    usable = model is not None and not machine.fault
    fitness = Fitness.of(console, model, _healthy(plugins), device, dtype) if model is not None and usable else None
    return Diagnosis(machine, plugins, tuple(done[extensions.GROUP]), fitness)


def _healthy(plugins: Sequence[Checkup]) -> Registry:
    """The registry without plugins that would hang or end this process too."""
    broken = [
        one.plugin.distribution or one.plugin.name
        for one in plugins
        if any(fault.during == "import" for fault in one.faults)
    ]
    left_out = ",".join([os.environ.get(DISABLE, ""), *broken])
    return Registry.installed({**os.environ, DISABLE: left_out})


def _shared(brought: Sequence[tuple[str, PluginInfo]]) -> Iterator[tuple[str, str]]:
    """Names that several plugins bring, each with those plugins."""
    for name in dict.fromkeys(name for name, _ in brought):
        owners = [plugin.distribution or plugin.name for other, plugin in brought if other == name]
        if len(owners) > 1:
            yield name, ", ".join(owners)


def _listed(what: str, checkups: Sequence[Checkup]) -> list[str]:
    rows = [
        (
            one.plugin.name,
            one.plugin.distribution,
            one.plugin.version,
            one.state,
            ", ".join([*one.methods, *one.models, *one.suites]) or None,
            None if one.plugin.disabled else one.seconds,
        )
        for one in checkups
    ]
    return ["", *table((what, "distribution", "version", "state", "brings", "seconds"), rows)] if rows else []
