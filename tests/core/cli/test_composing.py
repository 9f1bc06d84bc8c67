"""Commands that put erasures together: compose, pin, check, apply."""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from efface.erasure import Erasure

Run = Callable[..., Result]
Refused = Callable[..., str]
Install = Callable[..., None]

JOIN = '''
from dataclasses import dataclass
from typing import ClassVar

import efface.hookspecs
from efface.method import Fit
from efface_toys import Dim


@dataclass(frozen=True)
class Join(Dim):
    """Can be solved again."""

    name: ClassVar[str] = "join"

    def compose(self, fits, request):
        report = {"composition": {one.text: {"stacked": 0.5, "joint": 0.25} for one in request.concepts}}
        return Fit(fits[0].fit.tensors, report=report | {"kept": {"stacked": 0.125, "joint": 0.0625}})


@dataclass(frozen=True)
class Shelf(Dim):
    """Can be merged."""

    name: ClassVar[str] = "shelf"

    def merge(self, fits, request):
        return Fit(fits[0].fit.tensors)


@dataclass(frozen=True)
class Blur(Dim):
    """Is no change of weights."""

    name: ClassVar[str] = "blur"

    def apply(self, patch, fits):
        patch.output("unet.mid", lambda x, call: x)


@efface.hookspecs.hookimpl
def efface_methods():
    return [Join, Shelf, Blur]
'''


@pytest.fixture
def fit(run: Run, install: Install) -> Callable[..., str]:
    """Fits a toy method and gives the file."""
    install("extra-join", {"extra_join": JOIN}, "[efface]\njoin = extra_join\n")

    def fit(concept: str, method: str = "join", *options: str) -> str:
        file = f"{method}-{concept}.safetensors"
        result = run(
            "erase", "tiny", "--concept", concept, "--anchor", "tree", "--method", method, "-o", file, *options
        )
        assert result.exit_code == 0, result.output
        return file

    return fit


@pytest.fixture
def pinned(run: Run, erasure: Path) -> Path:
    assert run("pin", "tiny", "--erasure", erasure.name, "--scale", "0.5").exit_code == 0
    return Path("efface.toml")


# compose


def test_composing_shows_what_is_left_and_writes_the_file(run: Run, fit: Callable[..., str]) -> None:
    cat, dog = fit("cat", "join", "--keep", "dog", "--keep", "a car"), fit("dog")
    result = run("compose", "--erasure", cat, "--erasure", dog, "-o", "both.safetensors")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[:-1] == [
        "cat -> tree",
        "dog -> tree",
        "left of the way       side by side  joint",
        "cat                   0.5000        0.2500",
        "dog                   0.5000        0.2500",
        "(what is kept moves)  0.1250        0.0625",
        "no longer kept, because they are erased: dog",
    ]
    assert lines[-1].startswith("both.safetensors, ")
    both = Erasure.load("both.safetensors")
    assert [concept.text for concept in both.concepts] == ["cat", "dog"]

    result = run("compose", "--erasure", "both.safetensors", "--remove", "cat", "-o", "one.safetensors", "--json")
    data = json.loads(result.stdout)
    one = Erasure.load("one.safetensors")
    assert [concept.text for concept in one.concepts] == ["dog"]
    assert (data["file"], data["sha256"], data["bytes"]) == (
        "one.safetensors",
        one.digest,
        Path("one.safetensors").stat().st_size,
    )
    assert data["report"] == one.header.report


def test_merging_says_that_each_is_as_it_was_fitted(run: Run, fit: Callable[..., str]) -> None:
    result = run(
        "compose", "--erasure", fit("cat", "shelf"), "--erasure", fit("dog", "shelf"), "-o", "both.safetensors"
    )
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[:-1] == ["cat -> tree", "dog -> tree", "each concept is as it was fitted"]
    assert lines[-1].startswith("both.safetensors, ")
    result = run("compose", "--erasure", "both.safetensors", "--remove", "cat", "-o", "dog.safetensors", "--json")
    assert [concept.text for concept in Erasure.load("dog.safetensors").concepts] == ["dog"]
    assert [part["concepts"] for part in json.loads(result.stdout)["report"]["composed"]] == [["dog"]]


def test_a_file_that_is_there_is_composed_over_by_force_alone(
    run: Run, refused: Refused, fit: Callable[..., str]
) -> None:
    command = ["compose", "--erasure", fit("cat"), "--erasure", fit("dog"), "-o", "join-cat.safetensors"]
    assert "is there already; overwrite it with --force" in refused(*command)
    assert run(*command, "--force").exit_code == 0
    assert len(Erasure.load("join-cat.safetensors").concepts) == 2


def test_what_cannot_be_composed_is_an_error_in_a_line(
    refused: Refused, erasure: Path, fit: Callable[..., str]
) -> None:
    message = refused("compose", "--erasure", erasure.name, "--erasure", fit("dog"), "-o", "both.safetensors")
    assert "by dim," in message
    assert message.endswith("can be neither solved again nor merged; methods that can: join, shelf")


# pin


def test_pinning_writes_a_policy_and_says_what_is_in_it(run: Run, erasure: Path) -> None:
    result = run("pin", "tiny", "--erasure", erasure.name, "--scale", "0.5")
    assert result.stdout.splitlines() == [
        "dim-cat.safetensors efface-toys 1.0 scale 0.5",
        "efface.toml, 1 erasure on tiny",
    ]
    (one,) = tomllib.loads(Path("efface.toml").read_text())["erasures"]
    assert one == {
        "file": "dim-cat.safetensors",
        "sha256": Erasure.load(erasure).digest,
        "method": "dim",
        "plugin": "efface-toys",
        "version": "1.0",
        "scale": 0.5,
    }


def test_a_policy_is_overwritten_by_force_alone(run: Run, refused: Refused, pinned: Path, erasure: Path) -> None:
    command = ["pin", "tiny", "--erasure", erasure.name]
    assert "efface.toml is there already" in refused(*command)
    data = json.loads(run(*command, "--force", "--json").stdout)
    assert (data["model"], data["erasures"][0]["scale"]) == ("tiny", 1.0)


def test_what_could_not_be_attached_is_not_pinned(run: Run, refused: Refused, erasure: Path, models: Path) -> None:
    command = ["pin", str(models / "other"), "--erasure", erasure.name]
    assert "dim-cat was fitted on another base" in refused(*command)
    assert run(*command, "--allow-other-base").exit_code == 0
    assert run("check", "efface.toml").exit_code == 0


# check


def test_checking_says_that_all_is_as_pinned(run: Run, pinned: Path) -> None:
    result = run("check", "efface.toml")
    assert (result.exit_code, result.stdout) == (0, "efface.toml: all as pinned\n")


def test_checking_names_every_mismatch_and_exits_with_one(
    run: Run, pinned: Path, erasure: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = pinned.read_text()
    pinned.write_text(text.replace('version = "1.0"', 'version = "0.9"'))
    monkeypatch.setenv("TINY_MODEL", str(models / "other"))
    erasure.unlink()
    result = run("check", "efface.toml")
    assert (result.exit_code, result.stdout.splitlines()) == (
        1,
        [
            "file: dim-cat.safetensors: No such file or directory",
            "plugin: dim-cat.safetensors needs efface-toys 0.9; installed is 1.0",
            "model: the weights of text_encoder are not those that were pinned of tiny",
            "model: the weights of unet are not those that were pinned of tiny",
        ],
    )
    data = json.loads(run("check", "efface.toml", "--json").stdout)
    assert [(one["about"], one["name"]) for one in data["mismatches"]] == [
        ("file", "dim-cat.safetensors"),
        ("plugin", "efface-toys"),
        ("model", "text_encoder"),
        ("model", "unet"),
    ]


def test_a_model_that_cannot_be_loaded_is_a_mismatch(run: Run, pinned: Path) -> None:
    pinned.write_text(pinned.read_text().replace('name = "tiny"', 'name = "teeny"'))
    result = run("check", "efface.toml")
    assert result.exit_code == 1
    assert result.stdout.startswith("model: No model 'teeny'")


def test_a_policy_is_checked_from_anywhere(
    run: Run, pinned: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = place / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert run("check", "../efface.toml", "--dtype", "float16").exit_code == 0


def test_a_file_that_is_no_policy_is_an_error(refused: Refused, erasure: Path) -> None:
    assert refused("check", erasure.name).startswith(f"{erasure.name}: ")


# apply


def test_applying_writes_a_pipeline_with_the_erasure_in_its_weights(
    run: Run, pinned: Path, models: Path, erasure: Path
) -> None:
    result = run("apply", "efface.toml", "-o", "erased", "-q")
    assert result.stdout == "erased: tiny with 1 erasure in its weights\n"
    assert result.exit_code == 0
    shown = ["--prompt", "a cat", "--steps", "1", "--seed", "3", "-q"]
    run("generate", "erased", *shown, "--out", "fused")
    run("generate", "tiny", *shown, "--out", "hooks", "--erasure", erasure.name, "--scale", "0.5")
    run("generate", "tiny", *shown, "--out", "base")
    fused, hooks, base = ((Path(folder) / "a-cat-3.png").read_bytes() for folder in ("fused", "hooks", "base"))
    assert fused == hooks != base


def test_a_folder_that_is_there_is_left_alone(refused: Refused, pinned: Path) -> None:
    Path("erased").mkdir()
    assert refused("apply", "efface.toml", "-o", "erased") == "erased is there already; choose another name"


def test_what_no_weights_can_hold_is_refused_by_name(run: Run, refused: Refused, fit: Callable[..., str]) -> None:
    blur, join = fit("cat", "blur"), fit("dog")
    assert run("pin", "tiny", "--erasure", blur, "--erasure", join).exit_code == 0
    message = refused("apply", "efface.toml", "-o", "erased")
    assert message.startswith("No weights can hold blur-cat (output at unet.mid is no change of a weight). ")


def test_what_is_not_as_pinned_is_not_applied(refused: Refused, pinned: Path, erasure: Path, models: Path) -> None:
    erasure.unlink()
    assert "dim-cat.safetensors: No such file" in refused("apply", "efface.toml", "-o", "erased")
    shutil.copy(models / "one" / "model_index.json", erasure)
    assert "dim-cat.safetensors: this is not a safetensors file" in refused("apply", "efface.toml", "-o", "erased")
