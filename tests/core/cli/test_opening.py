"""How a command gets at its model: single files, offloading, and the memory that it says beforehand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result

from efface.testing import tiny_pipeline

Run = Callable[..., Result]
Refused = Callable[..., str]


@pytest.fixture
def folder(place: Path) -> Path:
    tiny_pipeline("sd1").save_pretrained(place / "folder")
    return place / "folder"


def test_a_model_that_needs_more_than_is_free_is_warned_of(run: Run, folder: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("efface.memory.free_bytes", lambda device: 1000)
    found = run("points", str(folder), "--kind", "mid")
    assert found.exit_code == 0
    assert "kB on cpu and 1.0 kB are free; bfloat16 takes half of float32 (dtype=torch.bfloat16, --" in found.stderr
    assert found.stderr.count("are free") == 1


def test_on_the_cpu_nobody_is_told_to_offload(run: Run, folder: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("efface.memory.free_bytes", lambda device: 1000)
    told = run("points", str(folder), "--kind", "mid", "--dtype", "bfloat16").stderr
    assert told.endswith("kB on cpu and 1.0 kB are free\n")


def test_models_of_plugins_are_warned_of_too(run: Run, monkeypatch: Any) -> None:
    monkeypatch.setattr("efface.memory.free_bytes", lambda device: 1000)
    assert run("points", "tiny", "--kind", "mid").stderr.startswith("Warning: tiny needs ")


def test_a_variant_that_is_read_is_named(run: Run, place: Path) -> None:
    tiny_pipeline("sd1", dtype=torch.float16).save_pretrained(place / "half", variant="fp16")
    told = run("points", "half", "--kind", "mid").stderr
    assert told == "half: the fp16 variant of its weights, as a part has no plain ones\n"


def test_what_a_large_model_takes_is_said_unless_quiet(run: Run, folder: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("efface.cli.opening.LARGE", 1000)
    assert "kB of weights, " in run("points", str(folder), "--kind", "mid").stderr
    assert "of weights" not in run("points", str(folder), "--kind", "mid", "--quiet").stderr


def test_a_small_model_is_not_worth_a_word(run: Run, folder: Path) -> None:
    assert "weights" not in run("points", str(folder), "--kind", "mid").stderr


def test_there_is_nowhere_to_offload_to_without_an_accelerator(refused: Refused) -> None:
    told = refused("generate", "tiny", "--prompt", "a cat", "--offload", "model")
    assert told.startswith("Offloading (offload=..., --offload) moves weights to a device (device=..., --device) and")
    assert "on cpu there is nowhere to go (this machine has: cpu" in told


def test_a_config_is_for_single_files(refused: Refused, folder: Path) -> None:
    assert "config goes with a single file" in refused("points", str(folder), "--config", str(folder))
