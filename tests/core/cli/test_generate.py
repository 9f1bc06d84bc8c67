"""`efface generate` and the function behind it: prompts and seeds become pictures in files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from efface.generating import generate
from efface.testing.pipelines import tiny_pipeline

Run = Callable[..., Result]
Refused = Callable[..., str]

DRAW = ("generate", "tiny", "--prompt", "a cat", "--steps", "2")


def pixels(image: Image.Image) -> np.ndarray[Any, Any]:
    return np.asarray(image).astype(int)


@pytest.fixture(scope="module")
def pipe() -> Any:
    return tiny_pipeline("sd1")


class TestTheFunction:
    def test_goes_prompt_by_prompt_and_seed_by_seed(self, pipe: Any) -> None:
        four = generate(pipe, ["a cat", "a dog"], [3, 5], steps=2)
        (last,) = generate(pipe, ["a dog"], [5], steps=2)
        assert np.abs(pixels(four[3]) - pixels(last)).max() <= 1

    def test_batches_do_not_change_pictures(self, pipe: Any) -> None:
        at_once = generate(pipe, ["a cat", "a dog"], [0, 1], steps=2)
        in_parts = generate(pipe, ["a cat", "a dog"], [0, 1], steps=2, batch_size=3)
        for one, other in zip(at_once, in_parts, strict=True):
            assert np.abs(pixels(one) - pixels(other)).max() <= 1

    def test_gives_nothing_for_nothing(self, pipe: Any) -> None:
        assert generate(pipe, [], [0]) == generate(pipe, ["a cat"], []) == []

    def test_passes_on_what_the_pipeline_takes(self, pipe: Any) -> None:
        (image,) = generate(pipe, ["a cat"], [0], steps=1, height=32, width=16)
        assert image.size == (16, 32)

    def test_tells_how_far_it_is(self, pipe: Any) -> None:
        told: list[tuple[int, int]] = []
        generate(
            pipe,
            ["a cat"],
            [0, 1, 2],
            steps=2,
            batch_size=2,
            progress=lambda done, total, _: told.append((done, total)),
        )
        assert told == [(0, 6), (2, 6), (4, 6), (4, 6), (5, 6), (6, 6), (6, 6)]

    @pytest.mark.parametrize("config", [None, {}, {"desc": "mine", "disable": False}])
    def test_leaves_the_progress_bar_as_it_was(
        self, pipe: Any, config: dict[str, Any] | None, capsys: pytest.CaptureFixture[str]
    ) -> None:
        if config is None:
            del pipe._progress_bar_config
        else:
            pipe.set_progress_bar_config(**config)
        generate(pipe, ["a cat"], [0], steps=1)
        assert capsys.readouterr().err == ""
        assert getattr(pipe, "_progress_bar_config", None) == config
        pipe.set_progress_bar_config(disable=True)


def test_files_are_named_by_prompt_and_seed(run: Run, place: Path) -> None:
    result = run(*DRAW, "--prompt", "A cat?", "--prompt", "...", "--seed", "4", "--seed", "2")
    names = ["a-cat-4", "a-cat-2", "a-cat-2-4", "a-cat-2-2", "picture-4", "picture-2"]
    assert (result.stdout, result.stderr) == ("".join(f"out/{name}.png\n" for name in names), "")
    assert {path.stem for path in (place / "out").iterdir()} == set(names)
    with Image.open("out/a-cat-4.png") as one, Image.open("out/a-cat-2-4.png") as other:
        assert one.size == other.size == (16, 16)


def test_json_lists_files_and_erasures(run: Run, erasure: Path) -> None:
    result = run(
        *DRAW, "--seed", "3", "--seeds", "2", "--erasure", erasure.name, "--scale", "2", "--json", "--out", "deep/in"
    )
    found = json.loads(result.stdout)
    assert found["files"] == [
        {"prompt": "a cat", "seed": 3, "file": "deep/in/a-cat-3.png"},
        {"prompt": "a cat", "seed": 4, "file": "deep/in/a-cat-4.png"},
    ]
    assert found["erasures"] == [{"file": erasure.name, "label": "dim-cat", "scale": 2.0}]
    assert result.stderr == ""


def test_an_erasure_changes_the_picture_and_its_scale_how_much(run: Run, erasure: Path) -> None:
    assert run(*DRAW, "--out", "plain").exit_code == 0
    for scale in ("0", "1"):
        assert run(*DRAW, "--erasure", erasure.name, "--scale", scale, "--out", scale).exit_code == 0
    plain, off, on = (pixels(Image.open(f"{folder}/a-cat-0.png")) for folder in ("plain", "0", "1"))
    assert (plain == off).all()
    assert (plain != on).any()


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("efface.loading.load", None)


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--seed", "1", "--seed", "2", "--seeds", "3"],
            "Give --seed several times, or --seeds with a number, not both",
        ),
        (["--seeds", "0"], "Invalid value for '--seeds': 0 is not in the range x>=1."),
        (["--guidance", "nan"], "Invalid value for '--guidance': 'nan' is not a number of 0 or more"),
        (["--erasure", "none.safetensors"], "none.safetensors: No such file or directory"),
        (["--scale", "1", "--scale", "2"], "2 times --scale for 0 erasures"),
    ],
)
def test_what_cannot_work_is_refused_before_a_model_is_loaded(
    refused: Refused, options: list[str], message: str
) -> None:
    assert refused(*DRAW, *options).startswith(message)


@pytest.mark.usefixtures("no_model")
def test_pictures_that_are_there_stay_without_force(refused: Refused, place: Path) -> None:
    (place / "out").mkdir()
    (place / "out" / "a-cat-0.png").write_text("precious")
    assert refused(*DRAW).startswith("out/a-cat-0.png is there already; overwrite it with --force")


@pytest.mark.usefixtures("no_model")
def test_a_file_in_the_way_of_the_folder_is_named(refused: Refused, place: Path) -> None:
    (place / "out").write_text("")
    assert refused(*DRAW) == f"Cannot write to out: {place / 'out'} is not a folder"


def test_too_many_steps_are_refused(refused: Refused) -> None:
    assert refused(*DRAW, "--steps", "1001") == "This model has 1000 timesteps: 1001 steps are more than that"


def test_an_interruption_says_which_pictures_are_there(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from efface import writing

    write = writing.write

    def once(path: Path, content: bytes, **options: bool) -> None:
        if path.name != "a-cat-0.png":
            raise KeyboardInterrupt
        write(path, content, **options)

    monkeypatch.setattr(writing, "write", once)
    result = run(*DRAW, "--seeds", "3")
    assert (result.exit_code, result.stderr) == (130, "Interrupted; written: out/a-cat-0.png\n")
    assert [path.name for path in place.rglob("*")] == ["out", "a-cat-0.png"]
