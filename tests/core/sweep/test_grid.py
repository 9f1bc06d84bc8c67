"""A grid becomes cells, and what is wrong in it is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from efface import Concept, EffaceError, Request
from efface.sweep.grid import Cell, Grid, Measure, Opening

GRID = """
model = "tiny"
seed = 7

[evaluation]
seeds = 3
steps = 2
guidance = 4

[[methods]]
method = "dim"
settings = {strength = [0.1, 0.2], mode = ["near", "far"], layers = [[1, 2]]}

[[methods]]
method = "chat"
preset = "strong"

[[concepts]]
concept = "cat"
anchor = "dog"
synonyms = ["kitten"]
keep = ["a bird"]

[[concepts]]
concept = "cubism"
kind = "style"
templates = ["a house in {}"]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "grid.toml"
    path.write_text(GRID)
    return path


def test_every_setting_of_every_method_meets_every_concept(file: Path) -> None:
    grid = Grid.read(file)
    assert grid.opening == Opening("tiny")
    assert grid.measure == Measure(seeds=(0, 1, 2), steps=2, guidance=4)
    cat = Request((Concept("cat", "dog", ("kitten",)),), keep=("a bird",))
    assert [cell.request for cell in grid.cells[:5]] == [cat] * 5
    assert [(cell.method, cell.preset, cell.settings) for cell in grid.cells[:5]] == [
        ("dim", None, {"strength": 0.1, "mode": "near", "layers": [1, 2]}),
        ("dim", None, {"strength": 0.1, "mode": "far", "layers": [1, 2]}),
        ("dim", None, {"strength": 0.2, "mode": "near", "layers": [1, 2]}),
        ("dim", None, {"strength": 0.2, "mode": "far", "layers": [1, 2]}),
        ("chat", "strong", {}),
    ]
    assert grid.cells[5].request == Request((Concept("cubism", kind="style"),), templates=("a house in {}",))
    assert (len(grid.cells), {cell.seed for cell in grid.cells}) == (10, {7})


def test_a_cell_comes_back_from_json(file: Path) -> None:
    for cell in Grid.read(file).cells:
        assert Cell.from_json(cell.to_json()) == cell


def test_seeds_may_be_listed(file: Path) -> None:
    file.write_text(GRID.replace("seeds = 3", "seeds = [5, 9]"))
    assert Grid.read(file).measure.seeds == (5, 9)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('model = "tiny"', "", "grid needs 'model'"),
        ('model = "tiny"', "model = 3", "grid: 'model' cannot be 3"),
        ("seed = 7", "sead = 7", "grid: No key 'sead'; there are: .* Did you mean 'seed'?"),
        ("seed = 7", 'dtype = "float8"', "grid: No dtype 'float8'; there are: bfloat16, float16, float32"),
        ("steps = 2", "stops = 2", r"\[evaluation\]: No key 'stops'"),
        ("seeds = 3", "seeds = true", r"\[evaluation\]: 'seeds' cannot be True"),
        ("seeds = 3", "seeds = 0", "'seeds' is a number of seeds or a list of different ones, not 0"),
        ("seeds = 3", "seeds = [1, 1]", r"'seeds' is a number of seeds or a list of different ones, not \[1, 1\]"),
        ("seeds = 3", "seeds = [-1]", r"'seeds' is a number of seeds or a list of different ones, not \[-1\]"),
        ('method = "chat"', "", r"\[\[methods\]\] 2 needs 'method'"),
        ('concept = "cubism"', "", r"\[\[concepts\]\] 2 needs 'concept'"),
        ('anchor = "dog"', 'anchor = "cat"', "Concept 'cat' has itself as anchor"),
        ('kind = "style"', "kind = 3", "3"),
        ("seed = 7", "seed =", "Cannot read a grid"),
    ],
)
def test_what_is_wrong_is_named(file: Path, old: str, new: str, message: str) -> None:
    assert old in GRID
    file.write_text(GRID.replace(old, new))
    with pytest.raises(EffaceError, match=message) as caught:
        Grid.read(file)
    assert "grid.toml" in str(caught.value)


@pytest.mark.parametrize("name", ["methods", "concepts"])
def test_there_is_at_least_one_of_each(file: Path, name: str) -> None:
    parts = [part for part in GRID.split("\n\n") if f"[[{name}]]" not in part]
    file.write_text(f"{name} = []\n" + "\n\n".join(parts))
    with pytest.raises(EffaceError, match=rf"grid needs at least one \[\[{name}\]\]"):
        Grid.read(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(EffaceError, match=r"none\.toml"):
        Grid.read(tmp_path / "none.toml")
