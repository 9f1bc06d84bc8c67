"""The page of benchmarks: figures in a table, and for each benchmark the machine that it was run on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

INTRODUCTION = """# Benchmarks

*After this page you know what edits cost, and how to measure it on your machine.*

`make bench` makes this page. `python benchmarks/run.py --only BENCHMARK` measures that benchmark's lines anew and
leaves the others as they are. What a ratio compares took turns in one run; seconds and milliseconds are named as such.
U-Nets have the widths and depths of Stable Diffusion 1.5 and random weights, but for stacks of erasures, which are
measured at a fifth of its width. Times of U-Net calls and of GLoCE's layer are the processor's, those of closed forms
the clock's. The scripts in `benchmarks/` say in their first lines what they compare with what.

A value in bold misses its aim.
"""
ROWS = ("what", "value", "aim", "benchmark")
RUNS = ("benchmarks", "run on")
BOUNDS = re.compile(r"(at least|at most|below) ([\d.]+)%?")
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")


@dataclass(frozen=True)
class Row:
    """A figure, its aim ("" where there is none), and the benchmark that found it."""

    what: str
    value: str
    aim: str
    benchmark: str

    @property
    def cells(self) -> tuple[str, ...]:
        return (
            self.what,
            f"**{self.value}**" if missed(self.value, self.aim) else self.value,
            self.aim,
            f"`{self.benchmark}`",
        )


@dataclass(frozen=True)
class Page:
    """Rows in order, and the circumstances under which each benchmark was run."""

    rows: tuple[Row, ...] = ()
    runs: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, text: str) -> Page:
        """The page that `text` was made of; ValueError for any other text."""
        if not text.startswith(INTRODUCTION.partition("\n")[0]):
            raise ValueError("not a page of benchmarks")
        rows = [Row(what, value.strip("*"), aim, name.strip("`")) for what, value, aim, name in _table(text, ROWS)]
        runs = {name: how for names, how in _table(text, RUNS) for name in re.findall(r"`(.+?)`", names)}
        return cls(tuple(rows), runs)

    def updated(self, rows: Sequence[Row], benchmarks: Iterable[str], how: str) -> Page:
        """With these rows of these benchmarks in the places of older ones, at the end where there are none."""
        order = list(dict.fromkeys([*(row.benchmark for row in self.rows), *(row.benchmark for row in rows)]))
        runs = {**self.runs, **dict.fromkeys(benchmarks, how)}
        kept = [row for row in self.rows if row.benchmark not in set(benchmarks)]
        return Page(tuple(sorted([*kept, *rows], key=lambda row: order.index(row.benchmark))), runs)

    def __str__(self) -> str:
        benchmarks = dict.fromkeys(row.benchmark for row in self.rows)
        together: dict[str, list[str]] = {}
        for name in benchmarks:
            together.setdefault(self.runs.get(name, "not noted"), []).append(f"`{name}`")
        runs = [(", ".join(names), how) for how, names in together.items()]
        figures = [row.cells for row in self.rows]
        return "\n".join([INTRODUCTION, *_lines(RUNS, runs), "", *_lines(ROWS, figures), ""])


def missed(value: str, aim: str) -> bool:
    """Whether a value misses its aim; ValueError for an aim that says no direction."""
    found = [float(number) for number in NUMBER.findall(value)]
    if not aim:
        return False
    if aim == "no more than the sum":
        return found[0] > found[1]
    bound = BOUNDS.fullmatch(aim)
    if bound is None:
        raise ValueError(f"The aim {aim!r} is none of: at least, at most or below a number, no more than the sum")
    least = float(bound[2])
    return {"at least": found[0] < least, "at most": found[0] > least, "below": found[0] >= least}[bound[1]]


def _table(text: str, heads: Sequence[str]) -> Iterator[list[str]]:
    """The cells of the table with these heads, line by line."""
    lines = iter(text.splitlines())
    for line in lines:
        if line == _line(heads):
            break
    next(lines, None)
    for line in lines:
        if not line.startswith("|"):
            return
        yield [cell.strip() for cell in line.strip("|").split("|")]


def _lines(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield _line(heads)
    yield "|" + "---|" * len(heads)
    yield from map(_line, rows)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
