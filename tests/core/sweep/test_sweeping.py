"""A sweep notes every result as it comes, and goes on where it was."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from efface import Concept, EffaceError, Request
from efface.sweep import store as store_module
from efface.sweep.grid import Cell
from efface.sweep.store import Store
from efface.sweep.sweeping import Event, sweep
from efface.sweep.worker import Finished

CELLS = {f"key {text}": Cell("dim", None, {}, Request((Concept(text),)), 0) for text in ("cat", "dog", "bird")}


class Crew:
    """Finishes cells in turn; one with an error, and none after it has been interrupted."""

    def __init__(self, fails: str = "", stops: str = "") -> None:
        self.fails, self.stops = fails, stops
        self.asked: list[str] = []

    def __call__(self, cells: Mapping[str, Cell]) -> Iterator[Event]:
        for key, cell in cells.items():
            self.asked.append(cell.concept)
            yield Event(key)
            if cell.concept == self.stops:
                raise KeyboardInterrupt
            failed = cell.concept == self.fails
            yield Event(key, Finished(error="no luck") if failed else Finished({"of": cell.concept}, 1.5))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "grid.sqlite")


def states(store: Store) -> list[str]:
    return [row.state for row in store.rows()]


def test_every_cell_is_a_row_in_order(store: Store) -> None:
    told: list[tuple[int, int, str]] = []
    rows = sweep(CELLS, store, Crew(), lambda *said: told.append(said))
    assert [(row.key, row.place, row.state, row.attempts, row.seconds) for row in rows] == [
        (key, place, "done", 1, 1.5) for place, key in enumerate(CELLS)
    ]
    assert [row.figures for row in rows] == [{"of": "cat"}, {"of": "dog"}, {"of": "bird"}]
    assert [Cell.from_json(row.cell) for row in rows] == list(CELLS.values())
    assert [done for done, _, _ in told] == [0, 0, 1, 1, 2, 2, 3]
    assert {(of, what) for _, of, what in told} == {(3, "sweeping")}


def test_what_is_done_is_not_done_again(store: Store) -> None:
    before = sweep(CELLS, store, Crew())
    again = Crew()
    assert sweep(CELLS, store, again) == before
    assert again.asked == []


def test_an_interrupted_sweep_goes_on(store: Store) -> None:
    with pytest.raises(KeyboardInterrupt):
        sweep(CELLS, store, Crew(stops="dog"))
    assert states(store) == ["done", "running", "pending"]
    crew = Crew()
    assert [row.attempts for row in sweep(CELLS, store, crew)] == [1, 2, 1]
    assert crew.asked == ["dog", "bird"]


def test_a_failed_cell_is_named_and_tried_again_the_next_time(store: Store) -> None:
    rows = sweep(CELLS, store, Crew(fails="dog"))
    assert [(row.state, row.error) for row in rows] == [("done", None), ("failed", "no luck"), ("done", None)]
    crew = Crew()
    rows = sweep(CELLS, store, crew)
    assert crew.asked == ["dog"]
    assert [(row.state, row.error) for row in rows] == [("done", None)] * 3


def test_another_grid_in_the_same_file_keeps_what_is_known(store: Store) -> None:
    sweep(CELLS, store, Crew())
    fewer = dict(reversed([item for item in CELLS.items() if item[0] != "key dog"]))
    crew = Crew()
    assert [row.key for row in sweep(fewer, store, crew)] == ["key bird", "key cat"]
    assert [row.key for row in sweep(CELLS, store, crew)] == list(CELLS)
    assert crew.asked == []


def test_the_table_is_plain_sqlite(store: Store) -> None:
    sweep(CELLS, store, Crew())
    found = sqlite3.connect(store.path).execute("SELECT state, figures FROM cells ORDER BY place").fetchall()
    assert [(state, json.loads(figures)["of"]) for state, figures in found] == [
        ("done", "cat"),
        ("done", "dog"),
        ("done", "bird"),
    ]


def test_a_file_that_is_no_table_of_results_is_named(store: Store) -> None:
    with pytest.raises(EffaceError, match=r"grid\.sqlite is not there: no sweep has been run"):
        store.rows()
    store.path.write_text("something else, and long enough to be read as a header of a database")
    for step in (store.check, lambda: store.plan({})):
        with pytest.raises(EffaceError, match=r"grid\.sqlite: file is not a database"):
            step()


def dump(store: Store, *statements: str) -> None:
    """A database as another program would make it."""
    with closing(sqlite3.connect(store.path)) as base, base:
        for statement in statements:
            base.execute(statement)


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE TABLE photos (id INTEGER)"],
        ["CREATE TABLE cells (key TEXT, content TEXT)"],
        ["PRAGMA application_id = 42"],
        [store_module.TABLE, "PRAGMA application_id = 42"],
    ],
)
def test_another_programs_database_is_refused_and_stays_as_it_is(store: Store, statements: list[str]) -> None:
    dump(store, *statements)
    before = store.path.read_bytes()
    for step in (store.check, store.rows, lambda: store.plan({"a": {}})):
        with pytest.raises(EffaceError, match=r"grid\.sqlite is a database of another program .* --results"):
            step()
    assert store.path.read_bytes() == before


def test_results_from_before_there_was_a_mark_open_and_get_it(store: Store) -> None:
    sweep(CELLS, store, Crew())
    rows = store.rows()
    dump(store, "PRAGMA application_id = 0")
    store.check()
    assert store.rows() == rows
    again = Crew()
    assert sweep(CELLS, store, again) == rows
    assert again.asked == []
    with closing(sqlite3.connect(store.path)) as base:
        assert base.execute("PRAGMA application_id").fetchone() == (store_module.APPLICATION,)


def test_an_empty_file_is_filled_but_has_nothing_to_show(store: Store) -> None:
    store.check()
    assert not store.path.exists()
    store.path.touch()
    store.check()
    with pytest.raises(EffaceError, match=r"grid\.sqlite is empty: no sweep has been run"):
        store.rows()
    assert len(sweep(CELLS, store, Crew())) == 3
