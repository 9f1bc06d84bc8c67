"""Checkpoints in the published layout: what is written can be read, and acts as it did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

import efface
from efface.testing import tiny_pipeline
from efface_gloce.gloce import GLoCE
from efface_gloce.official import exported, imported

LAYER = "lora_gloce_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_out_0"

Draw = Callable[..., Tensor]


def test_a_checkpoint_has_nine_tensors_for_each_of_sixteen_layers(cat: efface.Erasure, tmp_path: Path) -> None:
    (path,) = exported(cat, tmp_path)
    assert path == tmp_path / "cat" / "ckpt.safetensors"
    tensors = safetensors.torch.load_file(path)
    assert len(tensors) == 144
    assert {
        name.removeprefix(f"{LAYER}."): tuple(tensor.shape) for name, tensor in tensors.items() if LAYER in name
    } == {
        "alpha": (),
        "bias.weight": (1, 1, 8),
        "debias.weight": (1, 1, 8),
        "lora_degen.weight": (8, 2),
        "lora_update.weight": (8, 2),
        "selector.imp_center": (),
        "selector.imp_slope": (1,),
        "selector.select_mean_diff.weight": (1, 8),
        "selector.select_weight.weight": (1, 8, 1),
    }


def test_what_was_exported_acts_the_same_when_it_is_imported(
    pipe: Any, cat: efface.Erasure, dog: efface.Erasure, latents: Draw, tmp_path: Path
) -> None:
    files = {one.concepts[0].text: exported(one, tmp_path)[0] for one in (cat, dog)}
    both = imported(pipe, files, GLoCE(eta=1.0, map_rank=2))
    assert [concept.text for concept in both.concepts] == ["cat", "dog"]
    alone = imported(pipe, {"cat": files["cat"]})
    assert set(alone.tensors) == set(cat.tensors)
    assert all(torch.equal(alone.tensors[name], tensor) for name, tensor in cat.tensors.items())
    with efface.Editor(pipe, cat):
        wanted = latents(pipe)
    with efface.Editor(pipe, alone):
        assert torch.equal(latents(pipe), wanted)
    both.save(tmp_path / "both.safetensors")
    assert efface.Erasure.load(tmp_path / "both.safetensors") == both


def test_eta_window_and_rows_come_from_the_method(pipe: Any, cat: efface.Erasure, tmp_path: Path) -> None:
    (path,) = exported(cat, tmp_path)
    found = imported(pipe, {"cat": path}, GLoCE(eta=5.0, active_from=901, rows="all"))
    assert found.header.facts["terms"] == [{"eta": 5.0, "first": 901, "last": 0, "everywhere": True}]


def test_every_concept_of_an_erasure_gets_a_file(pipe: Any, quick: Any, tmp_path: Path) -> None:
    both = quick(pipe, [efface.Concept("red cat", anchor="fish"), efface.Concept("car", anchor="fish")])
    assert exported(both, tmp_path) == [tmp_path / name / "ckpt.safetensors" for name in ("red_cat", "car")]


def test_other_files_are_refused(pipe: Any, cat: efface.Erasure, tmp_path: Path) -> None:
    (path,) = exported(cat, tmp_path)
    with pytest.raises(efface.BadArtifact, match=r"does not fit .* 17 cross-attention layers"):
        imported(tiny_pipeline("sdxl"), {"cat": path})
    tensors = safetensors.torch.load_file(path)
    for broken in (
        {name: tensor for name, tensor in tensors.items() if name != f"{LAYER}.bias.weight"},
        tensors | {f"{LAYER}.bias.weight": torch.zeros(1, 1, 9)},
    ):
        safetensors.torch.save_file(broken, tmp_path / "broken.safetensors")
        with pytest.raises(efface.BadArtifact, match=r"bias\.weight is missing or does not fit"):
            imported(pipe, {"cat": tmp_path / "broken.safetensors"})
    (tmp_path / "text").write_text("no checkpoint")
    for wrong in (tmp_path / "text", tmp_path / "nothing"):
        with pytest.raises(efface.BadArtifact, match=str(wrong)):
            imported(pipe, {"cat": wrong})
    with pytest.raises(efface.BadArtifact, match="no checkpoint to import"):
        imported(pipe, {})


def test_only_gated_erasures_can_be_exported(cat: efface.Erasure, tmp_path: Path) -> None:
    other = efface.Erasure(replace(cat.header, method="other"), cat.tensors)
    with pytest.raises(efface.BadArtifact, match="is not by gloce"):
        exported(other, tmp_path)
