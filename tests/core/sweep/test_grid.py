"""A grid becomes cells, and what is wrong in it is named."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

import efface
from efface import Concept, EffaceError, Request
from efface.sweep.grid import Cell, Grid, Measure, Opening


@dataclass(frozen=True)
class Dim:
    """Does nothing."""

    name: ClassVar[str] = "dim"
    strength: float = efface.setting(0.1, min=0, max=1, help="how much")
    mode: Literal["near", "far"] = efface.setting("near", help="where")
    layers: tuple[int, ...] = efface.setting((), help="which")

    def fit(self, model: Any, request: Any, run: Any) -> efface.Fit:
        raise NotImplementedError

    def apply(self, patch: Any, fits: Any) -> None:
        raise NotImplementedError


@dataclass(frozen=True)
class Chat(Dim):
    """Neither."""

    name: ClassVar[str] = "chat"
    presets: ClassVar[dict[str, Any]] = {"strong": {"strength": 0.5}}


class Judge(efface.Suite):
    name, summary, digest = "judge", "nothing", "1"
    example = Request((Concept("cat", "dog"),))

    def accepts(self, model: Any) -> bool:
        return True

    def concepts(self, kind: Any = None) -> Any:
        return []

    def templates(self, kind: Any) -> Any:
        return []

    def found(self, images: Any, concept: str) -> Any:
        raise NotImplementedError


class Plugin:
    @efface.hookimpl
    def efface_methods(self) -> list[type]:
        return [Dim, Chat]

    @efface.hookimpl
    def efface_suites(self) -> list[Judge]:
        return [Judge()]


REGISTRY = efface.Registry([Plugin()])

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
    grid = Grid.read(file, REGISTRY)
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
    assert (grid.cells[4].where, grid.cells[5].where) == ("[[concepts]] 1", "[[concepts]] 2")


def test_a_cell_comes_back_from_json(file: Path) -> None:
    for cell in Grid.read(file, REGISTRY).cells:
        assert Cell.from_json(cell.to_json()) == cell


def test_seeds_may_be_listed(file: Path) -> None:
    file.write_text(GRID.replace("seeds = 3", "seeds = [5, 9]"))
    assert Grid.read(file, REGISTRY).measure.seeds == (5, 9)


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
        ("seed = 7", "seed = -1", rf"grid: 'seed' is a whole number from 0 to {2**64 - 1}, not -1"),
        ("steps = 2", "steps = 0", r"\[evaluation\]: 'steps' is a whole number of 1 or more, not 0"),
        ("steps = 2", "batch_size = 0", r"\[evaluation\]: 'batch_size' is a whole number of 1 or more, not 0"),
        ("guidance = 4", "guidance = -3", r"\[evaluation\]: 'guidance' is a number of 0 or more, not -3"),
        ("guidance = 4", "guidance = nan", "'guidance' is a number of 0 or more, not nan"),
        ("guidance = 4", "guidance = inf", "'guidance' is a number of 0 or more, not inf"),
        ("guidance = 4", 'suite = "jury"', r"\[evaluation\]: No suite 'jury'; installed: judge"),
        ("guidance = 4", 'suite = "judge"\nsuite_settings = {a = 1}', r"\[evaluation\]: .*has no settings"),
        ('"near", "far"', "", r"\[\[methods\]\] 1: setting 'mode' has no value to try: its list is empty"),
        ('method = "dim"', 'method = "dam"', r"\[\[methods\]\] 1: No method 'dam'.*Did you mean 'dim'"),
        ('"near", "far"', '"near", "fur"', r"\[\[methods\]\] 1: Setting 'mode' of dim must be one of near, far"),
        ("strength =", "strong =", r"\[\[methods\]\] 1: dim: No setting 'strong'"),
        ('"strong"', '"weak"', r"\[\[methods\]\] 2: chat: No preset 'weak'; it has: strong"),
        ('method = "chat"', "", r"\[\[methods\]\] 2 needs 'method'"),
        ('concept = "cubism"', "", r"\[\[concepts\]\] 2 needs 'concept'"),
        ('anchor = "dog"', 'anchor = "cat"', r"\[\[concepts\]\] 1: Concept 'cat' has itself as anchor"),
        ('kind = "style"', "kind = 3", r"\[\[concepts\]\] 2: .*3"),
        ('keep = ["a bird"]', "keep = [3]", r"\[\[concepts\]\] 1: .*3"),
        ("seed = 7", "seed =", "Cannot read a grid"),
    ],
)
def test_what_is_wrong_is_named(file: Path, old: str, new: str, message: str) -> None:
    assert old in GRID
    file.write_text(GRID.replace(old, new))
    with pytest.raises(EffaceError, match=message) as caught:
        Grid.read(file, REGISTRY)
    assert str(caught.value).startswith(f"{file}: ")
    assert str(caught.value).count("]] ") <= 1, "a table is named once"


@pytest.mark.parametrize("name", ["methods", "concepts"])
def test_there_is_at_least_one_of_each(file: Path, name: str) -> None:
    parts = [part for part in GRID.split("\n\n") if f"[[{name}]]" not in part]
    file.write_text(f"{name} = []\n" + "\n\n".join(parts))
    with pytest.raises(EffaceError, match=rf"grid needs at least one \[\[{name}\]\]"):
        Grid.read(file, REGISTRY)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(EffaceError, match=r"none\.toml"):
        Grid.read(tmp_path / "none.toml", REGISTRY)
