"""Settings of a method as fields of a form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import efface

Kind = Literal["choice", "switch", "whole", "number", "text"]


@dataclass(frozen=True)
class Field:
    """One input: what kind, under which label, with what in it; a list is a text with commas."""

    name: str
    kind: Kind
    value: str | float | bool
    help: str
    choices: tuple[str, ...] = ()
    min: float | None = None
    max: float | None = None


def fields(method: type[efface.Method], preset: Mapping[str, object] | None = None) -> list[Field]:
    """A field for every setting, filled with the preset's values where it has some, else with the defaults."""
    return [field(setting, (preset or {}).get(setting.name, setting.default)) for setting in efface.describe(method)]


def field(setting: efface.Setting, value: object) -> Field:
    """Numbers that may be missing, and lists, are texts: a number's field cannot be empty."""
    read = setting.read(value)
    if setting.type == "bool":
        return Field(setting.name, "switch", bool(read), setting.help)
    if setting.choices and not isinstance(read, tuple):
        return Field(setting.name, "choice", words(read), setting.help, tuple(map(words, setting.choices)))
    if isinstance(read, int | float) and setting.type in ("int", "float"):
        kind: Kind = "whole" if setting.type == "int" else "number"
        return Field(setting.name, kind, read, setting.help, min=setting.min, max=setting.max)
    return Field(setting.name, "text", words(read), f"{setting.help} ({setting.type})")


def words(value: object) -> str:
    """A value as somebody would type it."""
    if isinstance(value, tuple):
        return ", ".join(map(words, value))
    return "none" if value is None else str(value)


def settings(method: type[efface.Method], typed: Sequence[object]) -> dict[str, object]:
    """What was filled in, by the setting's name; BadSetting for what a setting cannot take."""
    found = {}
    for setting, value in zip(efface.describe(method), typed, strict=True):
        try:
            found[setting.name] = setting.read(whole(setting, value))
        except ValueError as wanted:
            raise efface.BadSetting(f"{setting.name} must be {wanted}, not {value!r}") from wanted
    return found


def whole(setting: efface.Setting, value: object) -> object:
    """A browser has one kind of number; 3.0 is a whole one, and a field that was emptied is no value."""
    if value is None and "none" not in setting.type:
        return ""
    return int(value) if setting.type == "int" and isinstance(value, float) and value.is_integer() else value


def phrases(text: str) -> tuple[str, ...]:
    """Texts between commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())
