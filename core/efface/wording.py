"""Numbers and JSON values as people read them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

MOST_SHOWN = 8


def seconds(value: float) -> str:
    """`8 ms`, `1.2 s`, `3 min 20 s`."""
    if value < 0.0995:
        return f"{1000 * value:.0f} ms" if value >= 0.0005 else "under 1 ms"
    if value < 59.95:
        return f"{value:.1f} s"
    return f"{round(value) // 60} min {round(value) % 60} s"


def roughly(value: float) -> str:
    """`under 1 s`, `40 s`, `5 min`, `2 h`."""
    if value < 1:
        return "0 s" if value <= 0 else "under 1 s"
    if value < 90:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 5400 else f"{value / 3600:.0f} h"


def count(value: int) -> str:
    """`12,345`, `12.3 million`, `1.2 billion`."""
    for size, name in ((10**9, "billion"), (10**6, "million")):
        if value >= size:
            return f"{value / size:.1f} {name}"
    return f"{value:,}"


def size(value: int) -> str:
    """Bytes: `512 bytes`, `12.3 kB`, `4.5 MB`."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if value >= unit:
            return f"{value / unit:.1f} {name}"
    return f"{value} bytes"


def counted(number: int, noun: str) -> str:
    """`1 point`, `3 points`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def spans(numbers: Iterable[int]) -> str:
    """`0-3, 7`: whole numbers with runs of three or more drawn together."""
    return ", ".join(_span(run) for run in _runs(sorted(set(numbers))))


def value(found: Any) -> str:
    """A JSON value in a line; of a long list the beginning and the length."""
    if found is None:
        return "none"
    if isinstance(found, bool):
        return "yes" if found else "no"
    if isinstance(found, float):
        return f"{found:.4g}"
    if isinstance(found, Mapping):
        return ", ".join(f"{name} {value(item)}" for name, item in found.items()) or "none"
    if isinstance(found, list | tuple):
        shown = ", ".join(map(value, found[:MOST_SHOWN])) or "none"
        return shown if len(found) <= MOST_SHOWN else f"{shown}, ... ({len(found)} in all)"
    return str(found)


def _runs(numbers: list[int]) -> list[list[int]]:
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return runs


def _span(run: list[int]) -> str:
    return f"{run[0]}\N{EN DASH}{run[-1]}" if len(run) > 2 else ", ".join(map(str, run))
