"""`efface sweep`: a grid on Ray, a table of results, and what it says of cells that failed."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from efface import Registry
from efface.sweep.grid import Cell, Grid
from efface.sweep.sweeping import Event
from efface.sweep.worker import Worker

Run = Callable[..., Result]
Refused = Callable[..., str]

FATAL = """
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import efface
import torch


@dataclass(frozen=True)
class Fatal:
    '''Kills its process the first time, each time or never.'''

    name: ClassVar[str] = "fatal"
    how: str = efface.setting("never", help="once, always or never")

    def fit(self, model, request, run):
        marker = Path(os.environ["FATAL"])
        if self.how == "always" or (self.how == "once" and not marker.exists()):
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "no":
            raise efface.EffaceError("no luck")
        width = model.points("text")[0].in_features
        return efface.Fit({"up": torch.ones(width, 1), "down": torch.ones(1, width) * 0.01})

    def apply(self, patch, fits):
        for fitted in fits:
            patch.map("unet.text", efface.LowRank(fitted.fit.tensors["up"], fitted.fit.tensors["down"]))


@efface.hookimpl
def efface_methods():
    return [Fatal]
"""

GRID = """
model = "tiny"

[evaluation]
seeds = 2
steps = 1

[[methods]]
method = "fatal"
settings = {how = ["never", "no"]}

[[methods]]
method = "dim"

[[concepts]]
concept = "cat"
anchor = "dog"
"""


@pytest.fixture(autouse=True)
def grid(install: Any, judge: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: Path) -> Path:
    install("efface-fatal", {"efface_fatal": FATAL + judge}, "[efface]\nfatal = efface_fatal\n", plugin="fatal")
    monkeypatch.setenv("EFFACE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FATAL", str(tmp_path / "marker"))
    path = place / "grid.toml"
    path.write_text(GRID)
    return path


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """No Ray: one worker in this process; the cells it computed."""

    def crew(opening: Any, measure: Any, cache: Any, *options: object) -> Callable[[Mapping[str, Cell]], Any]:
        def events(cells: Mapping[str, Cell]) -> Iterator[Event]:
            worker = Worker(opening, measure, cache)
            for key, cell in cells.items():
                yield Event(key)
                computed.append((cell.method, dict(cell.settings)))
                yield Event(key, worker.run(cell))

        return events

    computed: list[tuple[str, Any]] = []
    monkeypatch.setattr("efface.sweep.crew.Crew", crew)
    monkeypatch.setattr("efface.sweep.crew.check_installed", lambda: None)
    return computed


def test_a_table_has_a_line_for_each_cell_and_failures_are_named(run: Run, here: Any, place: Path) -> None:
    result = run("sweep", "grid.toml")
    assert result.exit_code == 1
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[0][:4] == ["concept", "method", "settings", "state"]
    assert [line[:4] for line in lines[1:4]] == [
        ["cat", "fatal", "how=never", "done"],
        ["cat", "fatal", "how=no", "failed"],
        ["cat", "dim", "-", "done"],
    ]
    assert lines[4] == ["3", "cells:", "2", "done,", "1", "failed"]
    assert result.stderr == "Warning: cat fatal how=no failed: no luck\n"
    shown = run("sweep", "grid.toml", "--show")
    assert (shown.exit_code, shown.stdout, shown.stderr) == (0, result.stdout, "")
    assert sorted(path.name for path in place.iterdir()) == ["grid.sqlite", "grid.toml"]


def test_a_second_run_does_what_is_missing(run: Run, here: list[Any], grid: Path) -> None:
    run("sweep", "grid.toml", "--results", "found.sqlite")
    here.clear()
    grid.write_text(GRID.replace('"never", "no"', '"never", "ever"'))
    assert run("sweep", "grid.toml", "--results", "found.sqlite").exit_code == 0
    assert here == [("fatal", {"how": "ever"})]


@pytest.fixture
def keys(grid: Path) -> Callable[[str], dict[tuple[str, str], str]]:
    """The keys of a grid's cells, by method and concept."""

    def keys(text: str) -> dict[tuple[str, str], str]:
        grid.write_text(text.replace(', "no"', ""))
        found = Grid.read(grid, Registry.installed())
        cells = Worker(found.opening, found.measure, None).keys(found)
        return {(cell.method, cell.concept): key for key, cell in cells.items()}

    return keys


Keys = Callable[[str], dict[tuple[str, str], str]]


def test_whatever_the_figures_depend_on_makes_another_cell(
    keys: Keys, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {
        "seeds = 2": "seeds = 3",
        "steps = 1": "steps = 2",
        'anchor = "dog"': "",
        'model = "tiny"': 'model = "tiny"\nseed = 1',
        'concept = "cat"': 'concept = "cat"\nkeep = ["a house"]',
    }
    found = [keys(GRID), *(keys(GRID.replace(old, new)) for old, new in changes.items())]
    monkeypatch.setattr("efface.evaluation.code.source_digest", lambda cls: "another source")
    found.append(keys(GRID))
    monkeypatch.setenv("TINY_MODEL", str(models / "other"))
    found.append(keys(GRID))
    assert len({key for each in found for key in each.values()}) == 2 * len(found) == 16


def test_a_default_written_out_and_more_cells_change_no_key(keys: Keys) -> None:
    before = keys(GRID)
    assert keys(GRID.replace('"dim"', '"dim"\nsettings.strength = 0.1')) == before
    more = keys(GRID + '\n[[concepts]]\nconcept = "dog"\n')
    assert (len(more), more | before) == (4, more)
    assert keys(GRID.replace('"dim"', '"dim"\nsettings.strength = 0.2'))["dim", "cat"] != before["dim", "cat"]
    assert keys(GRID.replace('"dim"', '"dim"\npreset = "strong"'))["dim", "cat"] != before["dim", "cat"]


def test_figures_are_those_of_evaluate(run: Run, here: Any, grid: Path) -> None:
    grid.write_text(GRID.replace('["never", "no"]', '"never"'))
    swept = json.loads(run("sweep", "grid.toml", "--json").stdout)
    run("erase", "tiny", "--concept", "cat", "--anchor", "dog", "--method", "dim")
    told = run("evaluate", "tiny", "--erasure", "dim-cat.safetensors", "--seeds", "2", "--steps", "1", "--json")
    found = dict(swept[1]["figures"])
    assert len(found.pop("erasure_sha256")) == 64
    assert found == json.loads(told.stdout)["concepts"]["cat"]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"dim"', '"dam"', "[[methods]] 2: No method 'dam'"),
        ('"dim"', '"dim"\nsettings.streng = 1', "[[methods]] 2: dim: No setting 'streng'"),
        ('"dim"', '"dim"\npreset = "weak"', "[[methods]] 2: dim: No preset 'weak'"),
        ('"cat"', '"bird"', "[[concepts]] 1: No concept 'bird'; judge can tell: cat, dog."),
        ("seeds = 2", 'seeds = 2\nsuite = "jury"', "[evaluation]: No suite 'jury'"),
        ("steps = 1", "steps = 1001", "[evaluation]: This model has 1000 timesteps"),
        ('"tiny"', '"tiny"\ndevice = "tpu"', "No device 'tpu'"),
        ('"tiny"', '"large"', "No model 'large'"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    refused: Refused, grid: Path, old: str, new: str, message: str
) -> None:
    grid.write_text(GRID.replace(old, new, 1))
    assert refused("sweep", "grid.toml").startswith(f"grid.toml: {message}")


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"dim"', '"dam"', "grid.toml: [[methods]] 2: No method 'dam'"),
        ("seeds = 2", 'seeds = 2\nsuite = "judge"', "grid.toml: [[concepts]] 1: No concept 'bird'"),
        ("", "", "found.sqlite: file is not a database"),
    ],
)
def test_what_needs_no_model_is_told_before_one_is_loaded(
    refused: Refused, grid: Path, place: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, message: str
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise AssertionError

    monkeypatch.setattr("efface.loading.load", fail)
    grid.write_text(GRID.replace(old, new, 1).replace('"cat"', '"bird"'))
    results = place / "found.sqlite"
    if "sqlite" in message:
        results.write_text("something else, and long enough to be read as a header of a database")
    assert refused("sweep", "grid.toml", "--results", results.name).startswith(message)


@pytest.mark.usefixtures("here")
def test_a_suite_that_does_not_accept_the_model_is_refused(
    refused: Refused, grid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(Registry.installed().suite("judge")), "accepts", lambda suite, model: False)
    grid.write_text(GRID.replace("seeds = 2", 'seeds = 2\nsuite = "judge"'))
    assert refused("sweep", "grid.toml") == (
        "grid.toml: [evaluation]: Suite 'judge' does not accept tiny: cats and dogs"
    )


def test_without_results_there_is_nothing_to_show(refused: Refused) -> None:
    assert refused("sweep", "grid.toml", "--show") == "grid.sqlite is not there: no sweep has been run"


def test_without_ray_the_extra_is_named(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("efface.sweep.crew.find_spec", lambda name: None)
    assert refused("sweep", "grid.toml") == ("A sweep runs on Ray, which is not installed: pip install 'efface[sweep]'")


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
def test_on_ray_a_killed_worker_is_replaced_and_its_cell_done(grid: Path, place: Path) -> None:
    grid.write_text(GRID.replace('["never", "no"]', '"once"'))
    result = subprocess.run(
        [sys.executable, "-m", "efface", "sweep", "grid.toml", "--json", "--workers", "1", "--cpus", "1"],
        cwd=place,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    rows = json.loads(result.stdout)
    assert [(row["cell"]["method"], row["state"], row["attempts"]) for row in rows] == [
        ("fatal", "done", 2),
        ("dim", "done", 1),
    ]
