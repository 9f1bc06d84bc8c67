"""What a model's weights take is known before they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from efface.memory import free_bytes, weights_bytes
from efface.testing import FAMILIES, tiny_pipeline
from efface.testing.pipelines import Family


def held(pipe: Any) -> int:
    parts = [part for part in pipe.components.values() if isinstance(part, nn.Module)]
    return sum(weight.numel() for part in parts for weight in part.state_dict().values())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_takes_what_its_networks_hold(family: Family, tmp_path: Path, shared: Any) -> None:
    shared(family).save_pretrained(tmp_path)
    assert weights_bytes(tmp_path, torch.float32) == 4 * held(shared(family))
    assert weights_bytes(tmp_path, torch.bfloat16) == 2 * held(shared(family))


def test_variants_that_are_not_loaded_do_not_count(tmp_path: Path, shared: Any) -> None:
    shared("sd1").save_pretrained(tmp_path)
    file = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    (tmp_path / "unet" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(file.read_bytes())
    assert weights_bytes(tmp_path, torch.float32) == 4 * held(shared("sd1"))


def test_a_variant_that_is_loaded_counts(tmp_path: Path) -> None:
    half = tiny_pipeline("sdxl", dtype=torch.float16)
    half.save_pretrained(tmp_path, variant="fp16")
    assert weights_bytes(tmp_path, torch.float16) == 2 * held(half)


def test_what_no_head_tells_is_not_guessed(tmp_path: Path, shared: Any) -> None:
    shared("sd1").save_pretrained(tmp_path)
    file = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    file.rename(file.with_suffix(".bin"))
    assert weights_bytes(tmp_path, torch.float32) is None


def test_some_memory_is_free_here() -> None:
    assert free_bytes(torch.device("cpu"))
