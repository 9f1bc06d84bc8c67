"""A sweep: what is missing in its table is computed by workers, and each result noted as it comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from efface.method import Progress, silent
from efface.sweep.grid import Cell
from efface.sweep.store import Row, Store
from efface.sweep.worker import Finished


@dataclass(frozen=True)
class Event:
    """What happened to a cell: a worker has begun it, or it is finished with a result, be that an error."""

    key: str
    result: Finished | None = None


Crew = Callable[[Mapping[str, Cell]], Iterator[Event]]
"""Workers that compute cells, by their keys, in any order, and say what happens as it does."""


def sweep(cells: Mapping[str, Cell], store: Store, crew: Crew, progress: Progress = silent) -> list[Row]:
    """All cells, by their keys, done or failed, in order; those that are done in the store are not computed again."""
    store.plan({key: cell.to_json() for key, cell in cells.items()})
    waiting = {row.key: cells[row.key] for row in store.rows() if row.state != "done"}
    done = len(cells) - len(waiting)
    progress(done, len(cells), "sweeping")
    if waiting:
        for event in crew(waiting):
            _note(store, event)
            done += event.result is not None
            progress(done, len(cells), "sweeping")
    return store.rows()


def _note(store: Store, event: Event) -> None:
    if event.result is None:
        store.begun(event.key)
    elif event.result.figures is None:
        store.failed(event.key, event.result.error or "no figures")
    else:
        store.done(event.key, event.result.figures, event.result.seconds)
