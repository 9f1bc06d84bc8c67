"""Commands that only say something: plugins, methods, points, show, plan."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from efface.erasure import Erasure

Run = Callable[..., Result]
Refused = Callable[..., str]
Install = Callable[..., None]


def data(result: Result) -> Any:
    """The JSON on stdout, with nothing but errors to be said on stderr."""
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return json.loads(result.stdout)


def test_plugins_are_listed_from_metadata(run: Run) -> None:
    (line,) = (line for line in run("plugins").stdout.splitlines() if line.startswith("toys"))
    assert line.split() == ["toys", "efface-toys", "1.0", "efface_toys", "About", "efface-toys."]


def test_plugins_as_json_say_what_is_disabled(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EFFACE_DISABLE_PLUGINS", "toys")
    (toys,) = (one for one in data(run("plugins", "--json")) if one["name"] == "toys")
    assert toys == {
        "name": "toys",
        "distribution": "efface-toys",
        "version": "1.0",
        "summary": "About efface-toys.",
        "module": "efface_toys",
        "disabled": True,
        "unmet": [],
    }


def test_methods_show_their_settings(run: Run) -> None:
    assert (
        "dim  (efface-toys 1.0)  Dims the words.\n"
        "  setting   type        default  allowed     help\n"
        "  strength  float       0.1      >= 0, <= 1  how much is taken away\n"
        "  mode      near | far  near     near | far  where it is taken away\n"
        "  layers    int, ...    -        -           which layers\n"
        "  preset strong: strength=0.5 layers=1,2\n"
    ) in run("methods").stdout


def test_one_method_is_shown_in_full(run: Run) -> None:
    lines = run("methods", "dim").stdout.splitlines()
    assert "  A toy with a low-rank map of the text." in lines
    assert "  kinds of point: text, cross_attn.*" in lines
    assert "  bypassed by: image prompts" in lines
    assert not any(line.startswith("chat") for line in lines)


def test_methods_as_json(run: Run) -> None:
    found = {one["name"]: one for one in data(run("methods", "--json"))}
    assert list(found) == ["chat", "dim", "stop"]
    assert found["dim"] == data(run("methods", "dim", "--json"))
    assert found["dim"]["presets"] == {"strong": {"strength": 0.5, "layers": [1, 2]}}
    assert found["dim"]["settings"][0] == {
        "name": "strength",
        "type": "float",
        "default": 0.1,
        "min": 0,
        "max": 1,
        "choices": None,
        "help": "how much is taken away",
    }


def test_a_broken_plugin_is_a_warning_beside_the_methods(run: Run, install: Install) -> None:
    install("extra-bad", {"extra_bad": "1 / 0"}, "[efface]\nbad = extra_bad\n")
    result = run("methods", "--json")
    assert result.stderr == "Warning: plugin bad failed: ZeroDivisionError: division by zero; see efface doctor\n"
    assert len(json.loads(result.stdout)) == 3


def test_points_are_a_table(run: Run, models: Path) -> None:
    lines = run("points", str(models / "one"), "--kind", "skip", "--kind", "text").stdout.splitlines()
    assert lines[0].split() == ["name", "kind", "component", "depth", "in", "out"]
    assert [line.split()[0] for line in lines[1:]] == ["unet.text", *(f"unet.skip.{i}" for i in range(12))]


def test_points_as_json_of_a_registered_model(run: Run) -> None:
    found = data(run("points", "tiny", "--kind", "step", "--json"))
    assert found == [
        {
            "name": "unet.step",
            "kind": "step",
            "component": "unet",
            "path": "",
            "order": 18,
            "depth": 0,
            "in_features": None,
            "out_features": None,
        }
    ]


def test_a_kind_that_is_not_there_is_answered_with_those_that_are(refused: Refused) -> None:
    message = refused("points", "tiny", "--kind", "cross")
    assert message.startswith("No hook points of kind 'cross' on this pipeline; it has: cross_attn.k, cross_attn.out,")


def test_an_erasure_is_shown_for_people(run: Run, erasure: Path) -> None:
    lines = run("show", erasure.name).stdout.splitlines()
    rows = [line.split(maxsplit=1) for line in lines]
    assert rows[1:8] == [
        ["method", "dim (efface-toys 1.0)"],
        ["object", "cat -> dog"],
        ["keep", "-"],
        ["templates", "{}"],
        ["settings", 'layers=[] mode="near" strength=0.1'],
        rows[6],
        ["points", "1 point: unet.text"],
    ]
    assert ["report", "loss.first: 2.0"] in rows
    assert ["tensor", "up float32 16x1"] in rows
    assert ["sha256", Erasure.load(erasure).digest] in rows


def test_an_erasure_as_json_is_its_header(run: Run, erasure: Path) -> None:
    assert data(run("show", erasure.name, "--json")) == Erasure.load(erasure).to_dict()


@pytest.mark.parametrize(
    "command", [["show"], ["plan", "tiny", "--erasure"], ["generate", "tiny", "--prompt", "a", "--erasure"]]
)
def test_a_damaged_erasure_is_refused_before_a_model_is_loaded(
    refused: Refused, erasure: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("efface.loading.load", None)
    whole = erasure.read_bytes()
    erasure.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    message = refused(*command, erasure.name)
    assert message == (
        f"{erasure.name}: header field 'sha256' does not fit the content: the file was damaged or changed"
    )


def test_a_missing_erasure_is_named(refused: Refused) -> None:
    assert refused("show", "none.safetensors") == "none.safetensors: No such file or directory"


def test_a_plan_says_what_meets_where(run: Run, erasure: Path) -> None:
    result = run("plan", "tiny", "--erasure", erasure.name, "--erasure", erasure.name, "--scale", "0.5", "--scale", "0")
    lines = result.stdout.splitlines()
    assert (result.exit_code, lines[:3]) == (
        0,
        [
            "1. dim-cat (scale 0.5): 1 text (32 modules, 6,912 weights); bypassed by image prompts",
            "2. dim-cat-2 (off): 1 text (32 modules, 6,912 weights); bypassed by image prompts",
            "meet at unet.text: dim-cat, dim-cat-2",
        ],
    )


def test_a_plan_as_json_names_the_files(run: Run, erasure: Path) -> None:
    (found,) = data(run("plan", "tiny", "--erasure", erasure.name, "--json"))["erasures"]
    assert (found["file"], found["label"], found["scale"]) == (erasure.name, "dim-cat", 1.0)


def test_an_erasure_of_another_base_is_planned_as_one_that_will_be_refused(
    run: Run, erasure: Path, models: Path
) -> None:
    plan = ["plan", str(models / "other"), "--erasure", erasure.name]
    result = run(*plan)
    assert result.exit_code == 1
    assert "\nrefusal: dim-cat was fitted on another base (differs by" in result.stdout
    allowed = run(*plan, "--allow-other-base")
    assert allowed.exit_code == 0
    assert "\nwarning: dim-cat was fitted on another base (differs by" in allowed.stdout


def test_a_strict_plan_lets_no_warning_pass(run: Run, erasure: Path) -> None:
    once, twice = ["plan", "tiny", "--erasure", erasure.name], ["--erasure", erasure.name]
    assert run(*once, "--strict").exit_code == 0
    assert run(*once, *twice).exit_code == 0
    result = run(*once, *twice, "--strict", "--json")
    assert result.exit_code == 1
    assert [one["about"] for one in json.loads(result.stdout)["findings"]] == ["repeated"]


def test_of_several_erasures_the_one_at_fault_is_named(
    run: Run, refused: Refused, erasure: Path, tmp_path: Path
) -> None:
    found = Erasure.load(erasure)
    Erasure(dataclasses.replace(found.header, method="dims"), found.tensors).save("dims.safetensors")
    message = refused("plan", "tiny", "--erasure", erasure.name, "--erasure", "dims.safetensors")
    assert message.startswith("dims.safetensors: No method 'efface-toys:dims'")


def test_an_erasure_by_a_method_that_is_not_installed_is_refused(
    refused: Refused, erasure: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EFFACE_DISABLE_PLUGINS", "toys")
    message = refused("plan", str(models / "one"), "--erasure", erasure.name)
    assert message.startswith(f"{erasure.name}: No method 'efface-toys:dim'; installed: none. Not loaded: ")
    assert "toys (disabled)" in message


@pytest.mark.parametrize("scale", ["nan", "-1", "inf", "much"])
def test_a_strength_is_a_number(refused: Refused, erasure: Path, scale: str) -> None:
    message = refused("plan", "tiny", "--erasure", erasure.name, "--scale", scale)
    assert message.startswith(f"Invalid value for '--scale': '{scale}' is not a number of 0 or more")


def test_strengths_are_one_or_as_many_as_erasures(refused: Refused, erasure: Path) -> None:
    message = refused("plan", "tiny", "--erasure", erasure.name, "--scale", "1", "--scale", "2")
    assert message.startswith("2 times --scale for 1 erasures: give it once, or once for each")
