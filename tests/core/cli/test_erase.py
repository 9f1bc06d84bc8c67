"""`efface erase`: an erasure in a file, or one line and no file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from efface.erasure import Erasure

Run = Callable[..., Result]
Refused = Callable[..., str]

CAT = ("erase", "tiny", "--concept", "cat", "--method", "dim")


def test_it_says_what_it_did_and_where(run: Run, place: Path) -> None:
    result = run(*CAT, "--anchor", "dog", "--synonym", "kitten")
    lines = result.stdout.splitlines()
    assert lines[0] == "cat (also kitten) -> dog"
    assert lines[1].startswith("dim (efface-toys 1.0): 1 point touched (unet.text), ")
    assert lines[2].startswith("dim-cat.safetensors, ")
    assert [path.name for path in place.iterdir()] == ["dim-cat.safetensors"]
    assert result.stderr == ""


def test_it_says_when_nobody_chose_the_anchor(run: Run) -> None:
    assert run(*CAT).stdout.splitlines()[0] == "cat -> a picture (neutral prompt: no anchor was given)"
    assert "cat -> a picture (neutral prompt: no anchor was given)" in run("show", "dim-cat.safetensors").stdout


def test_every_option_reaches_the_erasure(run: Run) -> None:
    given = "--concept dog --anchor tree --kind style --keep fish --keep bird --template {} --seed 7 --dtype bfloat16"
    settings = ["--preset", "strong", "--set", "mode=far", "--set", "strength=0.25", "--template", "a photo of {}"]
    assert run(*CAT, *given.split(), *settings, "-o", "x.safetensors").exit_code == 0
    header = Erasure.load("x.safetensors").header
    assert [(one.text, one.anchor, one.kind) for one in header.request.concepts] == [
        ("cat", "tree", "style"),
        ("dog", "tree", "style"),
    ]
    assert header.request.keep == ("fish", "bird")
    assert header.request.templates == ("{}", "a photo of {}")
    assert header.settings == {"strength": 0.25, "mode": "far", "layers": [1, 2]}
    assert (header.seed, header.base["dtype"]) == (7, "bfloat16")


def test_json_is_all_there_is_on_stdout_whoever_else_talks(run: Run) -> None:
    result = run("erase", "tiny", "--concept", "Van Gogh", "--method", "chat", "--json")
    found = json.loads(result.stdout)
    assert found["file"] == "chat-van-gogh.safetensors"
    assert found["bytes"] == Path(found["file"]).stat().st_size
    assert found["sha256"] == Erasure.load(found["file"]).digest
    assert found["request"]["concepts"][0]["anchor"] == "a picture"
    assert found["report"]["neutral anchor"] == ["Van Gogh"]
    assert result.stderr.startswith("on stdout\n")
    assert "an advice" not in result.stderr


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("efface.loading.load", None)


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "dom"], "No method 'dom'; installed: chat, dim, stop. Did you mean 'dim'?"),
        (["--preset", "weak"], "dim: No preset 'weak'; it has: strong."),
        (
            ["--set", "strenght=1"],
            "dim: No setting 'strenght'; it has: layers, mode, strength. Did you mean 'strength'?",
        ),
        (["--set", "strength=2"], "Setting 'strength' of dim must be at most 1, not '2'"),
        (["--set", "mode=away"], "Setting 'mode' of dim must be one of near, far, not 'away'"),
        (["--set", "strength"], "--set takes NAME=VALUE, such as --set lamb=0.1, not 'strength'"),
        (["--set", "=1"], "--set takes NAME=VALUE, such as --set lamb=0.1, not '=1'"),
        (["--set", "mode=far", "--set", "mode=near"], "--set gives 'mode' twice"),
        (["--anchor", "Cat"], "Concept 'cat' has itself as anchor ('Cat'); an anchor is what it becomes"),
        (["--concept", " "], "A concept must not be empty"),
        (["--concept", "CAT"], "The request erases 'CAT' twice"),
        (["--concept", "dog", "--synonym", "kitten"], "--synonym belongs to one --concept, and here are 2"),
        (["--keep", "cat"], "The request erases 'cat' and keeps it"),
        (["--template", "a cat"], "Template 'a cat' must hold {} exactly once, where the concept goes"),
        (["--seed", "-1"], "Invalid value for '--seed': '-1' is not a whole number from 0 to 18446744073709551615"),
        (["-o", "none/x.safetensors"], "Cannot save none/x.safetensors: "),
        (["-o", "."], ". is a folder; name a file in it"),
        (["-o", "/dev/null", "--force"], "/dev/null is there and is not a regular file"),
    ],
)
def test_what_cannot_work_is_refused_before_a_model_is_loaded(
    refused: Refused, options: list[str], message: str
) -> None:
    assert refused(*CAT, *options).startswith(message)


@pytest.mark.usefixtures("no_model")
def test_a_file_that_is_there_stays_without_force(refused: Refused, place: Path) -> None:
    (place / "dim-cat.safetensors").write_text("precious")
    assert refused(*CAT) == ("dim-cat.safetensors is there already; overwrite it with --force or choose another name")


@pytest.mark.usefixtures("no_model")
def test_a_file_in_the_way_of_a_folder_is_named(refused: Refused, place: Path) -> None:
    (place / "file").write_text("")
    assert (
        refused(*CAT, "-o", "file/x.safetensors") == f"Cannot save file/x.safetensors: {place / 'file'} is not a folder"
    )
    assert refused(*CAT, "--checkpoints", "file/x") == f"Cannot write to file/x: {place / 'file'} is not a folder"


@pytest.mark.usefixtures("no_model")
def test_a_folder_that_takes_no_files_is_found_before_the_fit(
    refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**_: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    assert refused(*CAT) == "Cannot save dim-cat.safetensors: No space left on device"


@pytest.mark.usefixtures("no_model")
def test_a_device_that_is_not_there_is_answered_with_those_that_are(refused: Refused) -> None:
    assert refused(*CAT, "--device", "cpuu").startswith("No device 'cpuu'; this machine has: cpu")


def test_a_concept_without_tokens_is_refused_by_name(refused: Refused) -> None:
    assert refused("erase", "tiny", "--concept", "猫", "--method", "dim") == (
        "'猫' has characters that are no tokens of this model"
    )


def test_force_overwrites(run: Run, place: Path) -> None:
    (place / "dim-cat.safetensors").write_text("worthless")
    assert run(*CAT, "--force").exit_code == 0
    assert Erasure.load("dim-cat.safetensors").method == "dim"


def test_a_failure_while_saving_leaves_what_was_there(
    refused: Refused, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    (place / "dim-cat.safetensors").write_text("precious")
    monkeypatch.setattr(os, "replace", fail)
    assert refused(*CAT, "--force") == "Cannot save dim-cat.safetensors: No space left on device"


def test_an_interruption_writes_nothing(run: Run, place: Path) -> None:
    result = run("erase", "tiny", "--concept", "cat", "--method", "stop", "--json")
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "Interrupted; nothing was written\n")
    assert list(place.iterdir()) == []


def test_an_interruption_names_the_checkpoints_that_stay(run: Run, place: Path) -> None:
    result = run("erase", "tiny", "--concept", "cat", "--method", "stop", "--checkpoints", "state")
    assert (result.exit_code, result.stderr) == (130, "Interrupted; written: state\n")
    assert [path.name for path in place.rglob("*")] == ["state", "step-1"]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, str]]:
    """What the bars were told, on a stderr that is a terminal."""
    told: list[tuple[int, int, str]] = []
    monkeypatch.setattr(
        "efface.cli.bar.Bar.__call__",
        lambda bar, done, total, what: told.append((done, total, what)) if bar._shown else None,
    )
    monkeypatch.setattr("efface.cli.console.Console.shows_progress", property(lambda console: not console.quiet))
    return told


def test_a_fit_is_told_to_the_bar_unless_quiet(run: Run, told: list[tuple[int, int, str]]) -> None:
    run(*CAT)
    assert told == [(0, 3, "dimming"), (1, 3, "dimming"), (2, 3, "dimming")]
    run(*CAT, "--force", "--quiet")
    assert len(told) == 3


def test_a_table_of_concepts_is_erased_in_one_go(run: Run, place: Path) -> None:
    rows = [f"cat {index},dog," for index in range(11)] + ["fish,,trout; salmon"]
    (place / "many.csv").write_text("concept,anchor,synonyms\n" + "\n".join(rows))
    result = run("erase", "tiny", "--concepts", "many.csv", "--method", "dim")
    lines = result.stdout.splitlines()
    assert lines[0] == "cat 0 -> dog"
    assert lines[10] == "and 2 more"
    assert lines[-1].startswith("dim-many.safetensors, ")
    erased = Erasure.load(place / "dim-many.safetensors").concepts
    assert len(erased) == 12
    assert erased[-1].synonyms == ("trout", "salmon")


def test_concepts_of_a_table_come_after_those_given_singly(run: Run, place: Path) -> None:
    (place / "many.csv").write_text("concept\nfish\n")
    run(*CAT, "--synonym", "kitten", "--concepts", "many.csv")
    assert [one.text for one in Erasure.load(place / "dim-cat.safetensors").concepts] == ["cat", "fish"]


def test_a_bad_table_is_refused_by_its_line(refused: Refused, place: Path) -> None:
    (place / "many.csv").write_text("concept,anchor\ncat,cat\n")
    assert "many.csv, line 2: " in refused("erase", "tiny", "--concepts", "many.csv", "--method", "dim")


@pytest.mark.parametrize(
    ("option", "given", "column"),
    [("--anchor", "dog", "anchor"), ("--anchor", "", "anchor"), ("--synonym", "kitten", "synonyms")]
    + [("--kind", kind, "kind") for kind in ("style", "object")],
)
def test_what_goes_with_a_concept_is_refused_with_a_table_alone(
    option: str, given: str, column: str, refused: Refused, place: Path
) -> None:
    (place / "many.csv").write_text("concept\ncat\n")
    told = refused("erase", "tiny", "--concepts", "many.csv", option, given, "--method", "dim")
    assert told.startswith(f"{option} goes with --concept TEXT; the table of --concepts has a column '{column}'")


def test_words_of_a_table_that_a_model_cannot_hold_are_named_in_short(refused: Refused, place: Path) -> None:
    long = "cat " * 300
    for row in (f"{long},dog,", f"cat,{long},", f"cat,dog,{long}"):
        (place / "many.csv").write_text(f"concept,anchor,synonyms\nfish,,\n{row}\n")
        told = refused("erase", "tiny", "--concepts", "many.csv", "--method", "dim")
        assert told.startswith("'cat cat" if row.startswith(long) else "Concept 'cat': 'cat cat")
        assert told.endswith("cat ...' is longer than the 16 tokens of this model")
        assert len(told) < 160


def test_something_has_to_be_erased(run: Run) -> None:
    assert "--concepts FILE for a table of them" in run("erase", "tiny", "--method", "dim").stderr
