"""Checkpoints in the published layouts: read, written, refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import safetensors.torch
import torch

import efface
from efface_dumo.branch import Branch
from efface_dumo.layouts import layouts
from efface_dumo.published import export, imported
from efface_dumo.skeleton import config_of

Maker = Callable[..., efface.Erasure]
LAYOUTS = ("diffusers", "diffusers-old", "ldm")


@pytest.fixture
def table(sd1: Any) -> torch.Tensor:
    return torch.rand(20, len(efface.points(sd1, "skip", "mid")), generator=torch.Generator().manual_seed(1))


def same_edit(one: efface.Erasure, other: efface.Erasure) -> bool:
    return one.tensors.keys() == other.tensors.keys() and all(
        torch.equal(tensor, other.tensors[name]) for name, tensor in one.tensors.items()
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_exported_comes_back(
    sd1: Any, invented: Maker, tmp_path: Path, layout: str, table: torch.Tensor
) -> None:
    erasure = invented(sd1, numbers=table)
    export(erasure, tmp_path / "out", layout=layout)
    back = imported(sd1, tmp_path / "out", "cat", settings={"store": "float32"})
    assert same_edit(back, erasure)
    assert back.header.settings["table"] == "time_layer"
    assert (back.header.method, back.header.distribution) == ("dumo", "efface-dumo")
    assert back.header.points == erasure.header.points


def test_an_imported_one_acts_like_the_exported_one(
    sd1: Any, invented: Maker, attached: Any, tmp_path: Path, table: torch.Tensor
) -> None:
    def latents() -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        found: torch.Tensor = sd1("a cat", num_inference_steps=1, generator=generator, output_type="latent").images
        return found

    erasure = invented(sd1, numbers=table, gate="both")
    export(erasure, tmp_path, layout="ldm")
    with attached(sd1, erasure):
        wanted = latents()
    settings = {"store": "float32", "gate": "both"}
    with attached(sd1, imported(sd1, tmp_path, "cat", settings=settings)):
        assert torch.equal(latents(), wanted)


def test_the_layouts_have_the_published_names(sd1: Any) -> None:
    known = layouts(Branch(config_of(sd1.unet)))
    assert set(known) == set(LAYOUTS)
    assert known["diffusers"]["joints.3.weight"] == "dumo_down_blocks.3.weight"
    assert known["diffusers"]["joints.12.bias"] == "dumo_mid_block.bias"
    assert known["diffusers-old"]["joints.0.weight"] == "controlnet_down_blocks.0.weight"
    assert known["diffusers-old"]["joints.12.weight"] == "controlnet_mid_block.weight"
    old = known["ldm"]
    assert old["joints.3.weight"] == "zero_convs.3.0.weight"
    assert old["joints.12.weight"] == "middle_block_out.0.weight"
    assert old["encoder.conv_in.weight"] == "input_blocks.0.0.weight"
    assert old["encoder.time_embedding.linear_2.bias"] == "time_embed.2.bias"
    assert old["encoder.down_blocks.0.resnets.1.conv2.weight"] == "input_blocks.2.0.out_layers.3.weight"
    assert old["encoder.down_blocks.0.downsamplers.0.conv.bias"] == "input_blocks.3.0.op.bias"
    assert old["encoder.down_blocks.1.resnets.0.conv_shortcut.weight"] == "input_blocks.4.0.skip_connection.weight"
    block = "transformer_blocks.0.attn2.to_k.weight"
    assert old[f"encoder.down_blocks.2.attentions.1.{block}"] == f"input_blocks.8.1.{block}"
    assert old["encoder.down_blocks.3.resnets.1.time_emb_proj.bias"] == "input_blocks.11.0.emb_layers.1.bias"
    assert old["encoder.mid_block.resnets.1.norm1.weight"] == "middle_block.2.in_layers.0.weight"
    for names in known.values():
        assert len(set(names.values())) == len(names)


def test_the_table_may_be_in_the_checkpoint_beside_it_or_elsewhere(
    sd1: Any, invented: Maker, tmp_path: Path, table: torch.Tensor
) -> None:
    export(invented(sd1, table="none"), tmp_path / "bare", layout="ldm")
    assert not (tmp_path / "bare" / "time_scale.npy").exists()
    assert imported(sd1, tmp_path / "bare", "cat").header.settings["table"] == "none"
    numpy.save(tmp_path / "elsewhere.npy", table.numpy())
    named = imported(sd1, tmp_path / "bare", "cat", table=tmp_path / "elsewhere.npy")
    assert torch.equal(named.tensors["0.modulation.table"], table)
    file = tmp_path / "bare" / "diffusion_pytorch_model.safetensors"
    inside = safetensors.torch.load_file(file) | {"control_model.time_scale": table}
    torch.save({"state_dict": inside | {"first_stage_model.x": torch.zeros(1)}}, tmp_path / "whole.ckpt")
    assert torch.equal(imported(sd1, tmp_path / "whole.ckpt", "cat").tensors["0.modulation.table"], table)


@pytest.mark.parametrize("shape", [(20,), (20, 1), (13,)])
def test_tables_of_time_or_layer_alone_are_spread(sd1: Any, invented: Maker, tmp_path: Path, shape: Any) -> None:
    export(invented(sd1, table="none"), tmp_path)
    numpy.save(tmp_path / "time_scale.npy", numpy.arange(numpy.prod(shape), dtype=numpy.float32).reshape(shape))
    found = imported(sd1, tmp_path, "cat")
    rows = 1 if shape == (13,) else 20
    wanted = torch.arange(13.0).expand(1, 13) if rows == 1 else torch.arange(20.0)[:, None].expand(20, 13)
    assert torch.equal(found.tensors["0.modulation.table"], wanted)
    assert found.header.settings["bins"] == rows


def test_a_table_by_time_is_exported_in_full(sd1: Any, invented: Maker, tmp_path: Path) -> None:
    export(invented(sd1, table="time", numbers=torch.arange(20.0)[:, None]), tmp_path)
    found = numpy.load(tmp_path / "time_scale.npy")
    assert (found.shape, found.dtype) == ((20, 13), numpy.float32)
    assert (found == numpy.arange(20.0)[:, None]).all()
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["_class_name"] == "DuMo"
    assert config["block_out_channels"] == list(sd1.unet.config.block_out_channels)


def spoiled(tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> Path:
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    tensors = safetensors.torch.load_file(file)
    change(tensors)
    safetensors.torch.save_file(tensors, file)
    return tmp_path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("conv_in.bias"), "nearest is diffusers, but it lacks conv_in.bias"),
        (lambda t: t.update({"a_hint": torch.zeros(1)}), "but it has a_hint"),
        (
            lambda t: t.update({"conv_in.bias": torch.zeros(3)}),
            r"conv_in.bias is \(3,\); this U-Net's branch needs \(8,\)",
        ),
    ],
)
def test_a_checkpoint_that_is_no_branch_of_this_u_net_is_refused(
    sd1: Any, invented: Maker, tmp_path: Path, change: Any, message: str
) -> None:
    export(invented(sd1), tmp_path)
    with pytest.raises(efface.BadArtifact, match=message):
        imported(sd1, spoiled(tmp_path, change), "cat")


def test_a_pickle_with_code_and_a_table_of_another_size_are_refused(sd1: Any, invented: Maker, tmp_path: Path) -> None:
    export(invented(sd1), tmp_path)
    numpy.save(tmp_path / "time_scale.npy", numpy.ones((20, 9), numpy.float32))
    with pytest.raises(efface.BadArtifact, match=r"has 13 columns, not \(20, 9\)"):
        imported(sd1, tmp_path, "cat")
    torch.save({"conv_in": Path("x")}, tmp_path / "code.bin")
    with pytest.raises(efface.BadArtifact, match=r"code.bin"):
        imported(sd1, tmp_path / "code.bin", "cat")
    with pytest.raises(efface.BadArtifact, match=r"nowhere: .*No such file"):
        imported(sd1, tmp_path / "nowhere", "cat")


def test_what_the_published_scripts_do_not_know_is_not_exported(sd1: Any, invented: Maker, tmp_path: Path) -> None:
    with pytest.raises(efface.BadSetting, match="this erasure's is 'linear'"):
        export(invented(sd1, table="linear"), tmp_path)
    with pytest.raises(efface.EffaceError, match="No layout 'comfy'; there are: diffusers, diffusers-old, ldm"):
        export(invented(sd1), tmp_path, layout="comfy")
