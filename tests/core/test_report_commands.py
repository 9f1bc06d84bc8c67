"""`efface demo` and `efface compare`: one file each, whole or not at all, and exit codes that say how it went."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import click
import pytest
from click.testing import CliRunner, Result
from PIL import Image

import efface
from efface import loading
from efface.cli import demo
from efface.cli.group import efface as command_line
from efface.cli.options import Duration
from efface.editor import Editor
from efface.report import comparison, grid, sampling
from efface.report.prompt import Prompt
from efface.testing.pipelines import tiny_pipeline

Run = Callable[..., Result]
QUICK = ("--steps", "1", "--seeds", "2")


@dataclass(frozen=True)
class Stumbles:
    name: ClassVar[str] = "stumbles"

    def fit(self, model: efface.Model, request: efface.Request, run: efface.Run) -> efface.Fit:
        raise RuntimeError("a singular matrix")

    def apply(self, patch: efface.Patch, fits: Any) -> None: ...


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pipeline on disk."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_pipeline("sd1").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def load() -> Callable[..., Any]:
    """Loads a model once: commands leave it as it was."""
    truly = loading.load
    return functools.cache(lambda model, registry, **_: truly(model, registry=registry))


@pytest.fixture(scope="module")
def installed(toys: Mapping[str, Any]) -> efface.Registry:
    class Plugin:
        @efface.hookimpl
        def efface_methods(self) -> list[type]:
            return [toys["tilt"], Stumbles]

    return efface.Registry([Plugin()])


@pytest.fixture
def run(
    folder: Path, load: Callable[..., Any], installed: efface.Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Run:
    """Runs a command on the tiny pipeline in an empty working folder, with two methods installed."""
    monkeypatch.setattr(loading, "load", load)
    monkeypatch.setattr(efface.Registry, "installed", lambda: installed)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def invoke(command: str, *arguments: str) -> Result:
        return CliRunner().invoke(command_line, [command, str(folder), *QUICK, *arguments])

    return invoke


@pytest.fixture
def file(erasures: Mapping[str, efface.Erasure], tmp_path: Path) -> str:
    erasures["tilt"].save(tmp_path / "tilt.safetensors")
    return str(tmp_path / "tilt.safetensors")


def left() -> list[str]:
    return sorted(str(path) for path in Path().rglob("*"))


# demo


def test_demo_writes_the_page_and_prints_where_it_is(run: Run) -> None:
    result = run("demo", "--concept", "cat", "--anchor", "fish", "--method", "tilt")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines()[-1] == "out/demo.html"
    assert left() == ["out", "out/demo.html"]
    page = Path("out/demo.html").read_text(encoding="utf-8")
    assert "a picture of cat" in page
    assert str(Path.cwd().parent) not in page


def test_demo_prints_what_took_how_long(run: Run) -> None:
    result = run("demo", "--concept", "cat", "--method", "tilt", "-o", "page.html")
    heads, tilt, whole, path = result.stdout.splitlines()
    assert heads.split() == ["method", *demo.PARTS, "detached:", "bit-identical"]
    assert tilt.split()[0] == "tilt"
    assert tilt.split()[-1] == "yes"
    assert whole.startswith("load ")
    assert ", base images " in whole
    assert path == "page.html"


def test_demo_as_json_has_the_facts_of_the_page(run: Run) -> None:
    prompts = ("--prompt", "a cat", "--scene", "a cat and a car", "--control", "a dog")
    result = run("demo", "--concept", "cat", "--method", "tilt", *prompts, "--seed", "7", "--json")
    facts = json.loads(result.stdout)
    assert facts["page"] == "out/demo.html"
    assert facts["model"]["name"] == "tiny"
    assert facts["sampling"]["prompts"] == [
        {"text": "a cat", "role": "concept"},
        {"text": "a cat and a car", "role": "scene"},
        {"text": "a dog", "role": "control"},
    ]
    assert facts["sampling"]["seeds"] == [7, 8]
    assert list(facts["seconds"]) == ["load", "check", "base images"]


def test_demo_shows_every_installed_method_and_ends_with_1_when_one_failed(run: Run) -> None:
    result = run("demo", "--concept", "cat", "--json")
    assert result.exit_code == 1
    assert [method["method"] for method in json.loads(result.stdout)["methods"]] == ["stumbles", "tilt"]
    assert "RuntimeError: a singular matrix" in Path("out/demo.html").read_text(encoding="utf-8")


def test_demo_needs_to_be_told_what_to_erase_where_no_suite_knows(run: Run) -> None:
    result = run("demo")
    assert (result.exit_code, left()) == (2, [])
    assert "--concept" in result.stderr


def test_demo_says_why_there_are_no_figures(run: Run) -> None:
    result = run("demo", "--concept", "cat", "--method", "tilt", "--json")
    facts = json.loads(result.stdout)
    assert facts["figures"] == {
        "missing": "no installed suite accepts this model, so nothing here can tell what its pictures show"
    }
    assert facts["methods"][0]["figures"] is None
    assert "There are no figures: no installed suite" in Path("out/demo.html").read_text(encoding="utf-8")


def test_demo_leaves_figures_out_when_asked_to(run: Run) -> None:
    result = run("demo", "--concept", "cat", "--method", "tilt", "--no-figures", "--json")
    assert json.loads(result.stdout)["figures"] == {"missing": "--no-figures left them out"}


def test_demo_also_writes_an_overview(run: Run) -> None:
    Path("mine.png").write_text("mine")
    arguments = ("--concept", "cat", "--method", "tilt", "--picture", "mine.png")
    refused = run("demo", *arguments)
    assert (refused.exit_code, Path("mine.png").read_text()) == (2, "mine")
    result = run("demo", *arguments, "--force")
    assert result.stdout.splitlines()[-2:] == ["out/demo.html", "mine.png"]
    with Image.open("mine.png") as image:
        assert image.format == "PNG"


def test_demo_takes_prompts_and_adds_one_that_names_the_concept(run: Run) -> None:
    facts = json.loads(run("demo", "--concept", "cat", "--method", "tilt", "--control", "a dog", "--json").stdout)
    assert [prompt["text"] for prompt in facts["sampling"]["prompts"]] == ["a picture of cat", "a dog"]


@pytest.mark.parametrize(("text", "seconds"), [("90", 90.0), ("90s", 90.0), ("1.5m", 90.0), ("2h", 7200.0), ("0", 0.0)])
def test_a_budget_is_a_time(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "m", "ten", "5 days", "-1", "inf", "1e3", "1mm"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a time such as 90, 90s, 10m or 2h"):
        Duration().convert(text, None, None)


def test_demo_makes_its_usual_page_anew_and_asks_before_it_replaces_another(run: Run) -> None:
    Path("out").mkdir()
    Path("out/demo.html").write_text("former")
    Path("mine.html").write_text("mine")
    arguments = ("--concept", "cat", "--method", "tilt")
    run("demo", *arguments)
    assert Path("out/demo.html").read_text(encoding="utf-8") != "former"
    refused = run("demo", *arguments, "-o", "mine.html")
    assert (refused.exit_code, Path("mine.html").read_text()) == (2, "mine")
    assert "--force" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--method", "tlit"), "No method 'tlit'; installed: stumbles, tilt. Did you mean 'tilt'?"),
        (("--anchor", "cat"), "has itself as anchor"),
        (("--template", "a cat"), "must hold {} exactly once"),
        (("--steps", "2000"), "1000 timesteps"),
        (("-o", "there"), "is a folder"),
    ],
)
def test_what_a_person_can_put_right_is_one_line_and_2(run: Run, arguments: tuple[str, ...], message: str) -> None:
    Path("there").mkdir()
    result = run("demo", "--concept", "cat", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert left() == ["there"]


def test_an_interrupted_demo_writes_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("efface.report.page.page", interrupt)
    result = run("demo", "--concept", "cat", "--method", "tilt")
    assert result.exit_code == 130
    assert "nothing was written" in result.stderr
    assert left() == []


# compare


def test_compare_writes_one_picture_and_prints_where_it_is(run: Run, file: str) -> None:
    result = run("compare", "--prompt", "a cat", "--prompt", "a dog", "--erasure", file)
    assert (result.exit_code, result.stdout) == (0, "out/compare.png\n")
    assert left() == ["out", "out/compare.png"]
    with Image.open("out/compare.png") as image:
        assert image.format == "PNG"


def test_compare_as_json_has_the_changes_and_the_erasures(run: Run, file: str, erasures: Any) -> None:
    Path("grid.png").write_text("former")
    result = run(
        "compare", "--prompt", "a cat", "--erasure", file, "--scale", "0.5", "--json", "-o", "grid.png", "--force"
    )
    facts = json.loads(result.stdout)
    assert facts["file"] == "grid.png"
    assert Path("grid.png").read_bytes().startswith(b"\x89PNG")
    (shown,) = facts["erasures"]
    assert (shown["method"], shown["scale"], shown["sha256"]) == ("tilt", 0.5, erasures["tilt"].digest)
    (row,) = facts["mean_absolute_pixel_change"]
    assert len(row["by_seed"]) == 2
    assert row["mean"] > 0


def test_compare_needs_an_erasure_that_is_there(run: Run) -> None:
    assert "Missing option '--erasure'" in run("compare", "--prompt", "a cat").stderr
    missing = run("compare", "--prompt", "a cat", "--erasure", "none.safetensors")
    assert (missing.exit_code, left()) == (2, [])


@pytest.mark.parametrize("enabled", [True, False])
def test_a_comparison_leaves_the_editor_as_it_was(pipe: Any, registry: Any, erasures: Any, enabled: bool) -> None:
    with Editor(pipe, erasures["tilt"], erasures["nudge"], registry=registry) as editor:
        editor.scale("tilt-cat", 0.5)
        if not enabled:
            editor.disable()
        before = editor.entries
        found = comparison.Comparison.of(editor, sampling.Sampling((Prompt("a cat"),), (0,), steps=1), "tiny")
        assert editor.entries == before
    assert len(found.entries) == (2 if enabled else 0)
    assert (found.changes[0] > 0) == enabled


def test_the_grid_has_each_picture_above_what_became_of_it() -> None:
    colours = [(row * 40, column * 40, side * 200) for row in range(2) for column in range(3) for side in range(2)]
    pictures = [Image.new("RGB", (16, 16), colour) for colour in colours]
    prompts = (Prompt("first"), Prompt("second"))
    found = comparison.Comparison(
        "tiny", (), sampling.Sampling(prompts, (0, 1, 2)), tuple(pictures[0::2]), tuple(pictures[1::2]), (0.0,) * 6, {}
    )
    sheet = grid._Grid(found).drawn()
    for position, (before, after) in enumerate(zip(colours[0::2], colours[1::2], strict=True)):
        row, column = divmod(position, 3)
        left = grid.EDGE + grid.LABEL + column * (128 + grid.GAP)
        top = grid.EDGE + grid.HEAD + row * (2 * 128 + grid.SEAM + grid.CAPTION + grid.GAP)
        upper = sheet.crop((left, top, left + 128, top + 128))
        lower = sheet.crop((left, top + 128 + grid.SEAM, left + 128, top + 256 + grid.SEAM))
        assert upper.getcolors() == [(128 * 128, before)]
        assert lower.getcolors() == [(128 * 128, after)]


def test_a_grid_is_as_wide_as_its_heading(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = (Image.new("RGB", (64, 64)),)
    one = sampling.Sampling((Prompt("a cat"),), (0,))
    short, long = (
        grid._Grid(comparison.Comparison(name, (), one, picture, picture, (0.0,), {})).drawn().width
        for name in ("tiny", "tiny" * 40)
    )
    assert short == 2 * grid.EDGE + grid.LABEL + 128
    assert long > short


def test_asking_for_help_imports_no_torch() -> None:
    code = "import sys, efface.cli.demo, efface.cli.compare; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"
