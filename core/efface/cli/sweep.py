"""`efface sweep`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from efface.cli.cache import cache_options, gallery_of
from efface.cli.console import Console, table
from efface.cli.opening import bars
from efface.cli.options import Finite, command, json_option, pass_console, quiet_option
from efface.cli.targets import check_folder
from efface.cli.wording import counted
from efface.devices import checked_device

if TYPE_CHECKING:
    from efface.sweep.store import Row

FIGURES = ("efficacy", "generality", "specificity_drop", "locality_other", "fidelity_mae", "quality")


@command(
    "efface sweep grid.toml --workers 2",
    "efface sweep grid.toml --address ray://head:10001 --workers 16 --gpus 1",
    "efface sweep grid.toml --show",
)
@click.argument("grid", type=click.Path(path_type=Path))
@click.option("--results", type=click.Path(path_type=Path), help="The SQLite file.  [GRID with .sqlite for .toml]")
@click.option("--show", is_flag=True, help="Show the results that there are, and run nothing.")
@click.option(
    "--workers", type=click.IntRange(1), default=1, show_default=True, help="Workers; each has the model in memory."
)
@click.option("--cpus", type=click.IntRange(1), help="Threads of each worker.  [this machine's, divided up]")
@click.option("--gpus", type=Finite(), help="GPUs of each worker, such as 0.5.  [1 where the grid's device is one]")
@click.option("--address", help="A Ray cluster to run on.  [this machine]")
@click.option(
    "--retries", type=click.IntRange(0), default=3, show_default=True, help="New workers for a cell whose worker died."
)
@cache_options
@json_option
@quiet_option
@pass_console
def sweep(
    console: Console,
    grid: Path,
    results: Path | None,
    show: bool,
    workers: int,
    cpus: int | None,
    gpus: float | None,
    address: str | None,
    retries: int,
    cache: Path | None,
    no_cache: bool,
) -> None:
    """Fit and evaluate methods x settings x concepts, in parallel.

    The grid is a TOML file. Results lie in an SQLite file, a row for each cell. A sweep that was interrupted goes on,
    and one that is run again does only what is missing or failed.
    """
    from efface.sweep.store import Store

    store = Store(results or grid.with_suffix(".sqlite"))
    if not show:
        gallery = gallery_of(cache, no_cache)
        check_folder(store.path.parent)
        share = cpus or max(1, (os.cpu_count() or 1) // (1 if address else workers))
        _run(console, grid, store, gallery.folder, workers, share, gpus, address, retries)
    rows = store.rows()
    console.answer([row.to_json() for row in rows], _lines(rows))
    failed = [row for row in rows if row.state == "failed"]
    if failed and not show:
        for row in failed:
            console.warn(f"{_name(row)} failed: {row.error}")
        raise click.exceptions.Exit(1)


def _run(
    console: Console,
    file: Path,
    store: Any,
    cache: Path | None,
    workers: int,
    cpus: int,
    gpus: float | None,
    address: str | None,
    retries: int,
) -> None:
    from efface.registry import Registry
    from efface.sweep.crew import Crew, check_installed
    from efface.sweep.grid import Grid, located
    from efface.sweep.sweeping import sweep as swept
    from efface.sweep.worker import Worker

    store.check()
    grid = Grid.read(file, Registry.installed())
    with located(grid.file):
        checked_device(grid.opening.device)
    check_installed()
    console.written.append(store.path)
    folder = None if cache is None else cache.absolute()
    share = gpus if gpus is not None else float(grid.opening.device != "cpu")
    with console.working() as progress, bars(console.shows_progress):
        cells = Worker(grid.opening, grid.measure, folder).keys(grid)
        crew = Crew(grid.opening, grid.measure, folder, workers, cpus, share, address, retries)
        swept(cells, store, crew, progress)


def _lines(rows: Sequence[Row]) -> Iterator[str]:
    heads = ("concept", "method", "settings", "state", *FIGURES)
    yield from table(heads, [(*_who(row), row.state, *(_figure(row, name) for name in FIGURES)) for row in rows])
    states = [row.state for row in rows]
    each = [f"{states.count(state)} {state}" for state in ("done", "failed", "running", "pending") if state in states]
    yield f"{counted(len(rows), 'cell')}: {', '.join(each)}"


def _who(row: Row) -> tuple[str, str, str]:
    cell = row.cell
    settings = [*([cell["preset"]] if cell["preset"] else []), *(f"{k}={v}" for k, v in cell["settings"].items())]
    return cell["request"]["concepts"][0]["text"], cell["method"], " ".join(settings) or "-"


def _name(row: Row) -> str:
    return " ".join(part for part in _who(row) if part != "-")


def _figure(row: Row, name: str) -> str | None:
    found = (row.figures or {}).get(name)
    return None if found is None else f"{found['value']:.3f}"
