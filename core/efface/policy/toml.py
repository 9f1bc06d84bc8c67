"""TOML as a policy needs it: the standard library reads it and writes none."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

BARE = re.compile(r"[A-Za-z0-9_-]+")


def toml(data: Mapping[str, Any]) -> str:
    """Tables, lists of tables, texts, booleans and finite numbers, in the order they are in."""
    return "\n".join(_table(data, ())).strip() + "\n"


def _table(data: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    for key, value in data.items():
        if not isinstance(value, Mapping | list):
            yield f"{_key(key)} = {_value(value)}"
    for key, value in data.items():
        inner = (*path, key)
        name = ".".join(map(_key, inner))
        if isinstance(value, Mapping):
            bare = not value or any(not isinstance(one, Mapping | list) for one in value.values())
            yield from (["", f"[{name}]"] if bare else [])
            yield from _table(value, inner)
        for one in value if isinstance(value, list) else ():
            yield from ("", f"[[{name}]]", *_table(one, inner))


def _key(key: str) -> str:
    return key if BARE.fullmatch(key) else _value(key)


def _value(value: str | bool | int | float) -> str:
    """A JSON text is a TOML text, but for one control character that JSON leaves as it is."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("\x7f", "\\u007f")
