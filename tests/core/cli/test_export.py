"""`efface export`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from safetensors.torch import load_file

from efface import Erasure

Run = Callable[..., Result]
Refused = Callable[..., str]


@pytest.mark.parametrize(("form", "mark"), [("diffusers-lora", ".lora_A.weight"), ("kohya-lora", ".alpha")])
def test_a_lora_is_written_with_its_sizes(form: str, mark: str, run: Run, erasure: Path, place: Path) -> None:
    given = ("export", erasure.name, "--model", "tiny", "--to", form, "-o", "lora.safetensors")
    result = run(*given, "--json")
    said, size = json.loads(result.stdout), (place / "lora.safetensors").stat().st_size
    before = erasure.stat().st_size
    assert said == {
        "file": "lora.safetensors",
        "format": form,
        "layers": 32,
        "ranks": [1],
        "bytes": size,
        "erasure_bytes": before,
    }
    assert sum(name.endswith(mark) for name in load_file(place / "lora.safetensors")) == 32
    text = run(*given, "--force").stdout
    assert text.startswith("lora.safetensors, ")
    assert ": 32 layers of rank 1 (erasures: " in text


def test_scales_and_precision_reach_the_file(run: Run, erasure: Path, place: Path) -> None:
    for name, options in {"one": (), "half": ("--scale", "0.5"), "small": ("--dtype", "float16")}.items():
        given = ("export", erasure.name, "--model", "tiny", "--to", "diffusers-lora", "-o", f"{name}.safetensors")
        assert run(*given, *options).exit_code == 0
    one, half, small = (load_file(place / f"{name}.safetensors") for name in ("one", "half", "small"))
    stem = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    up, down = f"{stem}.lora_B.weight", f"{stem}.lora_A.weight"
    assert ((half[up] @ half[down]) * 2 - one[up] @ one[down]).abs().max() < 1e-6
    assert {tensor.dtype.itemsize for tensor in small.values()} == {2}


def test_a_file_that_is_there_stays_without_force(refused: Refused, erasure: Path) -> None:
    given = ("export", erasure.name, "--model", "tiny", "--to", "kohya-lora", "-o", erasure.name)
    assert "--force" in refused(*given)
    assert Erasure.load(erasure).method == "dim"


def test_another_base_is_refused_by_file(refused: Refused, erasure: Path, models: Path) -> None:
    said = refused(
        "export", erasure.name, "--model", str(models / "other"), "--to", "kohya-lora", "-o", "x.safetensors"
    )
    assert said.startswith(f"{erasure.name}: This erasure was made for other weights")
