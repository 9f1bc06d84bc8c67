"""`efface methods`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from efface.cli.console import Console, table
from efface.cli.options import command, json_option, pass_console
from efface.cli.wording import origin

if TYPE_CHECKING:
    from efface.method import Method
    from efface.registry import Registry
    from efface.settings import Setting


@command("efface methods", "efface methods uce", "efface methods --json")
@click.argument("name", required=False)
@json_option
@pass_console
def methods(console: Console, name: str | None) -> None:
    """List the methods with their settings and presets.

    With NAME, says all there is about one. `efface erase` takes settings as --set name=value and a preset as
    --preset NAME.
    """
    from efface.registry import Registry

    with console.working():
        registry = Registry.installed()
        chosen = {name: registry.method(name)} if name else registry.methods()
        entries = [Entry.of(key, method, registry) for key, method in chosen.items()]
        broken = [] if name else registry.broken
    for fault in broken:
        console.warn(f"plugin {fault.plugin.name} failed: {fault.error}; see efface doctor")
    data: Any = [entry.to_json() for entry in entries]
    empty = [] if entries else ["No installed plugin brings a method."]
    lines = [line for entry in entries for line in entry.lines(in_full=name is not None)]
    console.answer(data[0] if name else data, empty + lines)


@dataclass(frozen=True)
class Entry:
    """One method as the command line presents it."""

    name: str
    distribution: str
    version: str
    text: str
    settings: list[Setting]
    presets: Mapping[str, Mapping[str, object]]
    families: tuple[str, ...]
    kinds: tuple[str, ...]
    bypassed_by: tuple[str, ...]
    seconds: float | None

    @classmethod
    def of(cls, name: str, method: type[Method], registry: Registry) -> Entry:
        from efface.method import Covers, cost_hint, covers
        from efface.settings import describe

        declared = covers(method) or Covers()
        return cls(
            name,
            *registry.origin(method),
            text=_own_words(method),
            settings=describe(method),
            presets=getattr(method, "presets", {}),
            families=declared.families,
            kinds=declared.kinds,
            bypassed_by=declared.bypassed_by,
            seconds=cost_hint(method),
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "distribution": self.distribution,
            "version": self.version,
            "text": self.text,
            "settings": [_setting(one) for one in self.settings],
            "presets": {name: dict(values) for name, values in self.presets.items()},
            "families": list(self.families),
            "kinds": list(self.kinds),
            "bypassed_by": list(self.bypassed_by),
            "cost_hint": self.seconds,
        }

    def lines(self, in_full: bool) -> Iterator[str]:
        summary, *more = self.text.splitlines() or [""]
        yield f"{self.name}  {origin(self.distribution, self.version)}  {summary}"
        if in_full:
            yield from (f"  {line}" for line in more)
            yield from (f"  {what}: {', '.join(values)}" for what, values in self._reach() if values)
            if self.seconds is not None:
                yield f"  expected time for one concept on the embedded model: {self.seconds:g} s"
        rows = [(one.name, one.type, _shown(one.default) or None, _allowed(one), one.help) for one in self.settings]
        yield from table(("setting", "type", "default", "allowed", "help"), rows, indent="  ")
        for name, values in self.presets.items():
            yield f"  preset {name}: {' '.join(f'{key}={_shown(value)}' for key, value in values.items())}"
        yield ""

    def _reach(self) -> list[tuple[str, tuple[str, ...]]]:
        return [("families", self.families), ("kinds of point", self.kinds), ("bypassed by", self.bypassed_by)]


def _own_words(method: type) -> str:
    """The docstring; a dataclass without one has only its signature there."""
    text = inspect.cleandoc(method.__doc__ or "")
    return "" if text.startswith(f"{method.__name__}(") else text


def _setting(one: Setting) -> dict[str, Any]:
    return {
        "name": one.name,
        "type": one.type,
        "default": one.default,
        "min": one.min,
        "max": one.max,
        "choices": one.choices,
        "help": one.help,
    }


def _allowed(one: Setting) -> str | None:
    if one.choices is not None:
        return " | ".join(map(str, one.choices))
    bounds = [f"{sign} {bound:g}" for sign, bound in ((">=", one.min), ("<=", one.max)) if bound is not None]
    return ", ".join(bounds) or None


def _shown(value: object) -> str:
    """A value as `--set` takes it."""
    if isinstance(value, list | tuple):
        return ",".join(map(_shown, value))
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
