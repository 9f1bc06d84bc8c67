"""What published checkpoints call the tensors of a branch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from efface_dumo.branch import ENCODER, JOINTS, Branch

Names = Mapping[str, str]

DIFFUSERS, OLD, LDM = "diffusers", "diffusers-old", "ldm"
_JOINTS = {
    DIFFUSERS: ("dumo_down_blocks.{}", "dumo_mid_block"),
    OLD: ("controlnet_down_blocks.{}", "controlnet_mid_block"),
    LDM: ("zero_convs.{}.0", "middle_block_out.0"),
}
_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}


def layouts(branch: Branch) -> dict[str, Names]:
    """For each published layout the name there of every tensor of the branch."""
    own = list(branch.state_dict())
    return {layout: {name: _name(branch, layout, name) for name in own} for layout in _JOINTS}


def _name(branch: Branch, layout: str, own: str) -> str:
    part, _, rest = own.partition(".")
    if part == JOINTS:
        place, _, leaf = rest.partition(".")
        skip, mid = _JOINTS[layout]
        return f"{skip.format(place) if int(place) < len(branch.joints) - 1 else mid}.{leaf}"
    assert part == ENCODER
    return _ldm_name(branch.encoder, rest) if layout == LDM else rest


def _ldm_name(encoder: Any, own: str) -> str:
    for ours, theirs in _ldm_modules(encoder):
        if own.startswith(f"{ours}."):
            return theirs + own.removeprefix(ours)
    raise KeyError(own)


def _ldm_modules(encoder: Any) -> Iterator[tuple[str, str]]:
    """Modules of diffusers' encoder with their names in the latent-diffusion code, whose input blocks are one list."""
    yield "conv_in", "input_blocks.0.0"
    for number, layer in ((1, 0), (2, 2)):
        yield f"time_embedding.linear_{number}", f"time_embed.{layer}"
        yield f"add_embedding.linear_{number}", f"label_emb.0.{layer}"
    place = 1
    for block, down in enumerate(encoder.down_blocks):
        for layer in range(len(down.resnets)):
            yield from _ldm_resnet(f"down_blocks.{block}.resnets.{layer}", f"input_blocks.{place}.0")
            yield f"down_blocks.{block}.attentions.{layer}", f"input_blocks.{place}.1"
            place += 1
        if down.downsamplers:
            yield f"down_blocks.{block}.downsamplers.0.conv", f"input_blocks.{place}.0.op"
            place += 1
    yield from _ldm_resnet("mid_block.resnets.0", "middle_block.0")
    yield "mid_block.attentions.0", "middle_block.1"
    yield from _ldm_resnet("mid_block.resnets.1", "middle_block.2")


def _ldm_resnet(ours: str, theirs: str) -> Iterator[tuple[str, str]]:
    for their, our in _RESNET.items():
        yield f"{ours}.{our}", f"{theirs}.{their}"
