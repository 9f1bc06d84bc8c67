"""The results of a sweep, in SQLite: a row for each cell, and every change of a row a transaction."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from efface.errors import EffaceError
from efface.header import canonical_json
from efface_hooks.errors import listed

State = Literal["pending", "running", "done", "failed"]

TABLE = """
CREATE TABLE IF NOT EXISTS cells (
    key TEXT PRIMARY KEY,
    place INTEGER,
    cell TEXT NOT NULL,
    state TEXT NOT NULL,
    figures TEXT,
    error TEXT,
    attempts INTEGER NOT NULL DEFAULT 0,
    seconds REAL
)
"""
COLUMNS = ("key", "place", "cell", "state", "figures", "error", "attempts", "seconds")
APPLICATION = int.from_bytes(b"effc")  # in the file's header: whose it is
OLDER = 0  # in files that were made before, as in any other program's


@dataclass(frozen=True)
class Row:
    """A cell and how it stands.

    `figures` are those of a cell that is done, `error` says why one failed, `attempts` how often it was begun; `place`
    counts from 0 in the grid that was run last, None for a cell of an earlier one.
    """

    key: str
    place: int | None
    cell: dict[str, Any]
    state: State
    figures: dict[str, Any] | None
    error: str | None
    attempts: int
    seconds: float | None

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class Store:
    """The file; EffaceError where it cannot be read or written. Nothing in it is lost when a process is killed."""

    path: Path

    def check(self) -> None:
        """EffaceError for a file that is there and has no results of a sweep; nothing is written."""
        if self.path.exists():
            with self._reading() as base:
                self._check(base)

    def plan(self, cells: Mapping[str, Mapping[str, Any]]) -> None:
        """These cells by their keys, in order, are the grid now; those that are done stay so, all others wait."""
        with self._writing() as base:
            self._check(base)
            base.execute(f"PRAGMA application_id = {APPLICATION}")
            base.execute(TABLE)
            base.execute("UPDATE cells SET place = NULL")
            base.executemany(
                "INSERT INTO cells (key, place, cell, state) VALUES (?, ?, ?, 'pending') "
                "ON CONFLICT (key) DO UPDATE SET place = excluded.place, "
                "state = CASE state WHEN 'done' THEN 'done' ELSE 'pending' END",
                [(key, place, canonical_json(cell)) for place, (key, cell) in enumerate(cells.items())],
            )

    def begun(self, key: str) -> None:
        self._change(key, "state = 'running', error = NULL, attempts = attempts + 1")

    def done(self, key: str, figures: Mapping[str, Any], seconds: float) -> None:
        self._change(key, "state = 'done', figures = ?, seconds = ?", canonical_json(figures), seconds)

    def failed(self, key: str, error: str) -> None:
        self._change(key, "state = 'failed', error = ?", error)

    def rows(self) -> list[Row]:
        """The cells of the grid that was run last, in its order; EffaceError where no sweep has been run."""
        if not self.path.is_file():
            raise EffaceError(f"{self.path} is not there: no sweep has been run")
        with self._reading() as base:
            if not self._check(base):
                raise EffaceError(f"{self.path} is empty: no sweep has been run")
            columns = ", ".join(COLUMNS)
            found = base.execute(f"SELECT {columns} FROM cells WHERE place IS NOT NULL ORDER BY place").fetchall()
        return [_row(*values) for values in found]

    def _check(self, base: sqlite3.Connection) -> bool:
        """Whether there are results of a sweep, False where there is nothing; EffaceError for anything else."""
        (owner,) = base.execute("PRAGMA application_id").fetchone()
        names = [name for (name,) in base.execute("SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'")]
        if owner in (APPLICATION, OLDER) and not names:
            return False
        columns = {name for _, name, *_ in base.execute("PRAGMA table_info(cells)")}
        if owner not in (APPLICATION, OLDER) or columns != set(COLUMNS):
            raise EffaceError(
                f"{self.path} is a database of another program ({listed(names) or 'empty'}) and no table of a sweep's "
                "results: name another file by --results"
            )
        return True

    def _change(self, key: str, what: str, *values: object) -> None:
        with self._writing() as base:
            base.execute(f"UPDATE cells SET {what} WHERE key = ?", (*values, key))

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._reading() as base, base:
            base.execute("BEGIN IMMEDIATE")
            yield base

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(os.fspath(self.path), timeout=60, isolation_level=None)) as base:
                yield base
        except sqlite3.Error as error:
            raise EffaceError(f"{self.path}: {error}") from error


def _row(
    key: str, place: int, cell: str, state: State, figures: str | None, error: str | None, attempts: int, seconds: float
) -> Row:
    return Row(key, place, json.loads(cell), state, json.loads(figures) if figures else None, error, attempts, seconds)


def missing(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.state != "done"]
