"""One safetensors file in the layout of Stable Diffusion's own code is the pipeline that was put into it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import efface
from efface import Registry, UnknownModel, UnsupportedPipeline
from efface.testing import FAMILIES, tiny_pipeline
from efface.testing.pipelines import Family

Tensors = dict[str, torch.Tensor]

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
    ("add_embedding.linear_1", "label_emb.0.0"),
    ("add_embedding.linear_2", "label_emb.0.2"),
)
VAE_ATTENTION = (("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out"))


def renamed(name: str, pairs: tuple[tuple[str, str], ...]) -> str:
    for ours, theirs in pairs:
        if f"{ours}." in name:
            return name.replace(f"{ours}.", f"{theirs}.", 1)
    return name


def unet_name(name: str, attentive: bool) -> str:
    """Blocks are numbered through there: two layers and a change of size for each of ours.

    `attentive` says whether the first block on the way up has attention, after which its change of size comes.
    """
    found = re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.*)", name)
    if found is None:
        name = renamed(name, UNET)
    else:
        way, block, part, layer, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
        number = 3 * block + layer + 1 if way == "down" else 3 * block + layer
        if part == "downsamplers":
            name = f"input_blocks.{3 * block + 3}.0.op.{rest.removeprefix('conv.')}"
        elif part == "upsamplers":
            name = f"output_blocks.{3 * block + 2}.{2 if attentive or block else 1}.{rest}"
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


OPEN_CLIP = (
    ("encoder.layers.", "transformer.resblocks."),
    ("layer_norm1", "ln_1"),
    ("layer_norm2", "ln_2"),
    ("fc1", "c_fc"),
    ("fc2", "c_proj"),
    ("self_attn.", "attn."),
    ("final_layer_norm", "ln_final"),
    ("embeddings.token_embedding", "token_embedding"),
    ("embeddings.position_embedding.weight", "positional_embedding"),
    ("text_projection.weight", "text_projection"),
)


def clip(encoder: Any) -> Tensors:
    return {f"transformer.text_model.{name.removeprefix('text_model.')}": w for name, w in encoder.state_dict().items()}


def open_clip(encoder: Any) -> Tensors:
    """Queries, keys and values are one matrix there, and the projection is on its side."""
    ours = {name.removeprefix("text_model."): weight for name, weight in encoder.state_dict().items()}
    theirs = {}
    for name, weight in ours.items():
        joined = re.sub(r"self_attn\.q_proj\.(weight|bias)", r"self_attn.in_proj_\1", name)
        if joined != name:
            weight = torch.cat([ours[name.replace("q_proj", f"{role}_proj")] for role in "qkv"])
        elif re.search("[kv]_proj", name):
            continue
        for one, other in OPEN_CLIP:
            joined = joined.replace(one, other)
        theirs[f"model.{joined}"] = weight.T if name == "text_projection.weight" else weight
    return theirs


TEXTS: dict[Family, tuple[tuple[str, str, Callable[[Any], Tensors]], ...]] = {
    "sd1": (("text_encoder", "cond_stage_model.", clip),),
    "sd2": (("text_encoder", "cond_stage_model.", open_clip),),
    "sdxl": (
        ("text_encoder", "conditioner.embedders.0.", clip),
        ("text_encoder_2", "conditioner.embedders.1.", open_clip),
    ),
}


def checkpoint(pipe: Any, family: Family) -> Tensors:
    found = {unet_name(name, family == "sdxl"): weight for name, weight in pipe.unet.state_dict().items()}
    found |= {vae_name(name): weight for name, weight in pipe.vae.state_dict().items()}
    for part, prefix, layout in TEXTS[family]:
        found |= {prefix + name: weight for name, weight in layout(getattr(pipe, part)).items()}
    return {name: weight.contiguous().clone() for name, weight in found.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For each family a file, and a diffusers folder with other weights."""
    path = tmp_path_factory.mktemp("single")
    for family in FAMILIES:
        save_file(checkpoint(tiny_pipeline(family, seed=3), family), path / f"{family}.safetensors")
        tiny_pipeline(family, seed=4).save_pretrained(path / family)
    return path


@pytest.fixture(scope="module")
def file(folder: Path) -> Path:
    return folder / "sd1.safetensors"


@pytest.fixture(scope="module")
def config(folder: Path) -> Path:
    return folder / "sd1"


@pytest.mark.parametrize("family", FAMILIES)
def test_the_file_gives_the_weights_and_the_folder_the_rest(family: Family, folder: Path, weights: Any) -> None:
    loaded = efface.load(folder / f"{family}.safetensors", config=folder / family, registry=Registry())
    assert weights(loaded) == weights(tiny_pipeline(family, seed=3))
    assert type(loaded) is type(tiny_pipeline(family))
    assert loaded.tokenizer("a cat").input_ids == tiny_pipeline().tokenizer("a cat").input_ids


def test_in_the_precision_asked_for(file: Path, config: Path) -> None:
    loaded = efface.load(file, config=config, dtype=torch.bfloat16, registry=Registry())
    assert {weight.dtype for weight in loaded.unet.parameters()} == {torch.bfloat16}


def test_without_a_folder_and_without_the_hub_it_says_what_is_missing(file: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UnknownModel, match=r"^\S+ says nothing of its tokenizer.*--config FOLDER"):
        efface.load(file, registry=Registry())


def test_a_file_without_such_a_unet_is_refused(tmp_path: Path, config: Path) -> None:
    save_file({"model.diffusion_model.joint_blocks.0.weight": torch.zeros(1)}, tmp_path / "sd3.safetensors")
    with pytest.raises(UnsupportedPipeline, match=r"has no tensor .*here are model\.diffusion_model"):
        efface.load(tmp_path / "sd3.safetensors", config=config, registry=Registry())


def test_a_damaged_file_is_refused_in_one_line(file: Path, config: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(file.read_bytes()[:500])
    with pytest.raises(UnknownModel, match=r"^Cannot load '.*broken\.safetensors', which is damaged: ") as caught:
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


@pytest.mark.parametrize(("family", "other"), [("sd1", "sdxl"), ("sdxl", "sd2")])
def test_a_config_of_another_family_is_refused_in_one_line(family: Family, other: Family, folder: Path) -> None:
    widths = {"sd1": 16, "sd2": 16, "sdxl": 40}
    told = (
        rf"another family \(.*, texts {widths[other]} wide\) than .* \(.*, texts {widths[family]} wide\); name a diff"
    )
    with pytest.raises(UnknownModel, match=told) as caught:
        efface.load(folder / f"{family}.safetensors", config=folder / other, registry=Registry())
    assert str(caught.value).startswith("config ")


def test_a_config_with_texts_of_another_width_is_refused(file: Path, config: Path, tmp_path: Path) -> None:
    wide = Path(shutil.copytree(config, tmp_path / "wide"))
    form = wide / "unet" / "config.json"
    form.write_text(form.read_text().replace('"cross_attention_dim": 16', '"cross_attention_dim": 1024'))
    with pytest.raises(UnknownModel, match=r"texts 1024 wide\) than .*, texts 16 wide\)"):
        efface.load(file, config=wide, registry=Registry())


def test_a_config_without_a_unet_or_a_tokenizer_says_so(file: Path, config: Path, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline", "transformer": ["diffusers", "Flux"]}')
    with pytest.raises(UnsupportedPipeline, match=r"^FluxPipeline has transformer, no unet"):
        efface.load(file, config=tmp_path, registry=Registry())
    lacking = Path(shutil.copytree(config, tmp_path / "lacking"))
    shutil.rmtree(lacking / "tokenizer")
    with pytest.raises(UnknownModel, match=r"lacking has no tokenizer/, which"):
        efface.load(file, config=lacking, registry=Registry())
    shutil.copytree(config / "tokenizer", lacking / "tokenizer")
    (lacking / "unet" / "config.json").write_text("junk")
    with pytest.raises(UnknownModel, match=r"unet/config\.json does not say how wide the texts are"):
        efface.load(file, config=lacking, registry=Registry())
