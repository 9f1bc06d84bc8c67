"""One safetensors file in the layout of Stable Diffusion's own code is the pipeline that was put into it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import efface
from efface import Registry, UnknownModel, UnsupportedPipeline
from efface.testing import tiny_pipeline

RESNET = (
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("time_emb_proj", "emb_layers.1"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("conv_shortcut", "skip_connection"),
)
UNET = (
    ("time_embedding.linear_1", "time_embed.0"),
    ("time_embedding.linear_2", "time_embed.2"),
    ("conv_in", "input_blocks.0.0"),
    ("conv_norm_out", "out.0"),
    ("conv_out", "out.2"),
    ("mid_block.resnets.0", "middle_block.0"),
    ("mid_block.attentions.0", "middle_block.1"),
    ("mid_block.resnets.1", "middle_block.2"),
)
VAE_ATTENTION = (("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out"))


def renamed(name: str, pairs: tuple[tuple[str, str], ...]) -> str:
    for ours, theirs in pairs:
        if f"{ours}." in name:
            return name.replace(f"{ours}.", f"{theirs}.", 1)
    return name


def unet_name(name: str) -> str:
    """Blocks are numbered through there: two layers and a change of size for each of ours."""
    found = re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.*)", name)
    if found is None:
        name = renamed(name, UNET)
    else:
        way, block, part, layer, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
        number = 3 * block + layer + 1 if way == "down" else 3 * block + layer
        if part == "downsamplers":
            name = f"input_blocks.{3 * block + 3}.0.op.{rest.removeprefix('conv.')}"
        elif part == "upsamplers":
            name = f"output_blocks.{3 * block + 2}.{1 if block == 0 else 2}.{rest}"
        else:
            name = f"{'input' if way == 'down' else 'output'}_blocks.{number}.{int(part == 'attentions')}.{rest}"
    return "model.diffusion_model." + (name if "transformer_blocks" in name else renamed(name, RESNET))


def vae_name(name: str) -> str:
    name = re.sub(r"down_blocks\.(\d)\.resnets\.", r"down.\1.block.", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets\.", lambda found: f"up.{1 - int(found[1])}.block.", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda found: f"up.{1 - int(found[1])}.upsample", name)
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda found: f"mid.block_{int(found[1]) + 1}", name)
    if "mid_block.attentions.0" in name:
        name = renamed(name.replace("mid_block.attentions.0", "mid.attn_1"), VAE_ATTENTION)
    return "first_stage_model." + name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")


def text_name(name: str) -> str:
    return "cond_stage_model.transformer.text_model." + name.removeprefix("text_model.")


def checkpoint(pipe: Any) -> dict[str, torch.Tensor]:
    parts = ((pipe.unet, unet_name), (pipe.vae, vae_name), (pipe.text_encoder, text_name))
    return {name(key): value.contiguous().clone() for part, name in parts for key, value in part.state_dict().items()}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("single") / "tiny.safetensors"
    save_file(checkpoint(tiny_pipeline("sd1", seed=3)), path)
    return path


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the family with other weights."""
    path = tmp_path_factory.mktemp("single") / "config"
    tiny_pipeline("sd1", seed=4).save_pretrained(path)
    return path


def test_the_file_gives_the_weights_and_the_folder_the_rest(file: Path, config: Path, weights: Any) -> None:
    loaded = efface.load(file, config=config, registry=Registry())
    assert weights(loaded) == weights(tiny_pipeline("sd1", seed=3))
    assert loaded.tokenizer("a cat").input_ids == tiny_pipeline().tokenizer("a cat").input_ids


def test_in_the_precision_asked_for(file: Path, config: Path) -> None:
    loaded = efface.load(file, config=config, dtype=torch.bfloat16, registry=Registry())
    assert {weight.dtype for weight in loaded.unet.parameters()} == {torch.bfloat16}


def test_without_a_folder_and_without_the_hub_it_says_what_is_missing(file: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UnknownModel, match=r"nothing of its tokenizer.*--config FOLDER"):
        efface.load(file, registry=Registry())


def test_a_file_without_such_a_unet_is_refused(tmp_path: Path, config: Path) -> None:
    save_file({"model.diffusion_model.joint_blocks.0.weight": torch.zeros(1)}, tmp_path / "sd3.safetensors")
    with pytest.raises(UnsupportedPipeline, match=r"has no tensor .*here are model\.diffusion_model"):
        efface.load(tmp_path / "sd3.safetensors", config=config, registry=Registry())


def test_a_damaged_file_is_refused_in_one_line(file: Path, config: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(file.read_bytes()[:500])
    with pytest.raises(UnknownModel, match="Cannot load") as caught:
        efface.load(broken, config=config, registry=Registry())
    assert "\n" not in str(caught.value)


def test_a_file_that_can_run_code_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.ckpt").write_bytes(b"")
    with pytest.raises(UnknownModel, match=r"model\.ckpt is no safetensors file; convert it first"):
        efface.load(tmp_path / "model.ckpt", registry=Registry())


def test_a_config_that_is_no_pipeline_or_not_wanted_is_refused(file: Path, config: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match=r"is a folder without model_index\.json"):
        efface.load(file, config=tmp_path, registry=Registry())
    with pytest.raises(UnknownModel, match="config goes with a single file"):
        efface.load(config, config=config, registry=Registry())
