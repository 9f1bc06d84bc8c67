"""`efface gates`: the maps say where gates were open, and the picture shows it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import efface
from efface.cli.group import efface as program
from efface_gloce.gated import Gate
from efface_gloce.maps import GateMap, GateRecorder, block_of
from efface_gloce.sheet import HEAT, STRONGEST, Row, Sheet, caption, heated

Change = Callable[[efface.Erasure, float], efface.Erasure]


def gate(opened: list[list[float]], active: bool = True, winner: int = 0) -> Gate:
    rows = torch.tensor(opened)
    return Gate(rows, torch.full(rows.shape, winner), rows - 0.5, torch.tensor([active] * len(rows)))


def heard(recorder: GateRecorder, point: str, *gates: Gate) -> None:
    layer: Any = SimpleNamespace(name=f"unet.{point}.attentions.0", concepts=("cat", "dog"), lowest_threshold=0.7)
    call: Any = SimpleNamespace(sample=torch.zeros(2, 4, 2, 4))
    for one in gates:
        recorder(layer, one, call)


def test_a_map_is_the_mean_over_layers_and_active_steps_of_the_prompts_rows() -> None:
    recorder = GateRecorder(1)
    heard(
        recorder, "down_blocks.1", gate([[1, 1], [0, 1]]), gate([[1, 1], [1, 1]]), gate([[0, 0], [1, 1]], active=False)
    )
    ((found,),) = recorder.maps()
    assert found.block == "down 1"
    assert found.open.tolist() == [[0.5, 1.0]]
    assert found.share == 0.75
    assert found.highest == 0.5
    assert found.lowest_threshold == 0.7
    assert found.winners == {"cat": 1.0}


def test_every_picture_and_every_block_has_its_own_map() -> None:
    recorder = GateRecorder(2)
    heard(recorder, "mid_block", gate([[0.2, 0.4], [0.8, 0], [0, 0.2], [1, 1]], winner=1))
    heard(recorder, "up_blocks.3", gate([[0] * 8] * 4))
    first, second = recorder.maps()
    assert [one.block for one in first] == ["mid", "up 3"]
    assert first[0].highest == pytest.approx(-0.3)
    assert first[0].winners == {}
    assert (first[0].unprompted, second[0].unprompted) == pytest.approx((0.3, 0.4))
    assert second[0].winners == {"dog": 1.0}
    assert second[1].open.shape == (2, 4)


def test_points_belong_to_blocks() -> None:
    assert block_of("unet.down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_out.0") == "down 0"
    assert block_of("unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0") == "mid"
    assert block_of("unet.other.to_out.0") == "unet.other.to_out.0"


def test_a_picture_is_coloured_where_gates_were_open() -> None:
    found = heated(
        Image.new("RGB", (4, 2), "#336699"), GateMap("mid", torch.tensor([[1.0, 0.0]]), 0.1, 0.5, ("cat",), {})
    )
    coloured, grey = found.getpixel((0, 0)), found.getpixel((3, 1))
    assert isinstance(coloured, tuple)
    assert isinstance(grey, tuple)
    assert len(set(grey)) == 1
    mixed = [grey[i] + STRONGEST * (HEAT[i] - grey[i]) for i in range(3)]
    assert list(coloured) == pytest.approx(mixed, abs=1.5)


@pytest.mark.parametrize(
    ("share", "highest", "threshold", "concepts", "said"),
    [
        (0.25, 0.1, 0.5, ("cat",), ["open 25.0%", "p - c up to +0.100"]),
        (0.0004, -0.005, 0.5, ("cat",), ["open < 0.1%", "p - c up to -0.005"]),
        (0.0, -0.2, 0.5, ("cat",), ["closed", "p - c up to -0.200"]),
        (0.0, -0.2, 1.04, ("cat",), ["cannot open", "threshold 1.04"]),
        (0.25, 0.1, 0.5, ("cat", "dog"), ["open 25.0%", "p - c up to +0.100", "cat 75%, dog 25%"]),
    ],
)
def test_below_a_map_stands_how_far_gates_were_open_or_why_not(
    share: float, highest: float, threshold: float, concepts: tuple[str, ...], said: list[str]
) -> None:
    winners = {"cat": 0.75, "dog": 0.25}
    gates = GateMap("mid", torch.full((2, 2), share), highest, threshold, concepts, winners)
    assert caption(gates).splitlines() == said


def test_it_stands_there_too_where_gates_opened_without_the_prompt() -> None:
    gates = GateMap("mid", torch.zeros(2, 2), -0.2, 0.5, ("cat",), {}, unprompted=0.02)
    assert caption(gates).splitlines() == ["closed", "p - c up to -0.200", "without prompt: open 2.0%"]


def test_a_row_says_when_no_gate_opened() -> None:
    picture = Image.new("RGB", (64, 64), "#336699")

    def row(share: float, unprompted: float) -> Row:
        gates = GateMap("mid", torch.full((2, 2), share), -0.2, 0.5, ("cat",), {}, unprompted)
        return Row("a cat", 0, picture, picture, (replace(gates, open=torch.zeros(2, 2), unprompted=0.0), gates))

    rows = [row(0.0, 0.0), row(1e-6, 0.0), row(0.0, 1e-6)]
    assert [one.is_untouched for one in rows] == [True, False, False]
    texts = [Sheet("gates", (one,)).drawn().crop((300, 200, 450, 300)).tobytes() for one in rows]
    assert texts[0] != texts[1]


@pytest.fixture
def files(pipe: Any, cat: efface.Erasure, with_threshold: Change, tmp_path: Path) -> Path:
    pipe.save_pretrained(tmp_path / "model")
    with_threshold(cat, -1.0).save(tmp_path / "open.safetensors")
    with_threshold(cat, 2.0).save(tmp_path / "closed.safetensors")
    efface.Erasure(replace(cat.header, method="other"), cat.tensors).save(tmp_path / "other.safetensors")
    return tmp_path


def run(files: Path, *arguments: str) -> Any:
    common = ["gates", str(files / "model"), "--prompt", "a cat", "--steps", "3", "-o", str(files / "gates.png")]
    return CliRunner().invoke(program, [*common, *arguments], prog_name="efface")


def heat(path: Path) -> float:
    """The share of a sheet's pixels that have the colour of open gates."""
    red, _, blue = np.moveaxis(np.asarray(Image.open(path).convert("RGB")), -1, 0)
    return float(((red > 225) & (blue < 60)).mean())


def test_the_command_writes_a_picture_and_says_how_far_gates_were_open(files: Path) -> None:
    result = run(files, "--erasure", str(files / "open.safetensors"), "--seeds", "3", "--batch-size", "2", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [picture["seed"] for picture in found["pictures"]] == [0, 1, 2]
    blocks = {one["block"]: one for one in found["pictures"][0]["blocks"]}
    assert list(blocks) == ["down 0", "down 1", "down 2", "mid", "up 1", "up 2", "up 3"]
    assert blocks["down 0"]["grid"] == [8, 8]
    assert blocks["mid"]["grid"] == [1, 1]
    assert {one["open"] for one in blocks.values()} == {1.0}
    assert heat(Path(found["file"])) > 0.25
    assert run(files, "--erasure", str(files / "open.safetensors")).exit_code == 2
    closed = run(files, "--erasure", str(files / "closed.safetensors"), "--force", "--json")
    assert {one["open"] for one in json.loads(closed.stdout)["pictures"][0]["blocks"]} == {0.0}
    assert all(one["highest p - c"] < 0 for one in json.loads(closed.stdout)["pictures"][0]["blocks"])
    assert heat(files / "gates.png") < 0.01


def test_erasures_by_other_methods_have_no_gates(files: Path) -> None:
    result = run(files, "--erasure", str(files / "other.safetensors"))
    assert result.exit_code == 2
    assert "other.safetensors is an erasure by other, which has no gates" in result.stderr
    assert not (files / "gates.png").exists()
