"""What the two formats of LoRA files call a layer."""

from __future__ import annotations

import re
from typing import Any

from efface_hooks import BadEdit
from efface_hooks.plan import Place
from efface_hooks.point import ENCODER_LAYERS

_ATTENTION = re.compile(r"(down_blocks|up_blocks)\.(\d+)\.attentions\.(\d+)\.(.+)")
_MID = "mid_block.attentions.0."
_ENCODER = re.compile(rf"encoder\.layers\.\d+\.({'|'.join(map(re.escape, ENCODER_LAYERS.values()))})")


def diffusers_name(place: Place) -> tuple[str, str, str]:
    """The names of the `down` and the `up` factor in a file that diffusers and peft write, and none for an alpha."""
    if place.component == "unet":
        return f"unet.{place.path}.lora_A.weight", f"unet.{place.path}.lora_B.weight", ""
    stem = f"{place.component}.text_model.{encoder_path(place)}.lora_linear_layer"
    return f"{stem}.down.weight", f"{stem}.up.weight", ""


def kohya_name(pipe: Any, place: Place) -> tuple[str, str, str]:
    """The names of `down`, `up` and `alpha` in a file of kohya's sd-scripts, which most programs read."""
    stem = f"{_kohya_prefix(pipe, place)}_{_kohya_path(pipe, place)}".replace(".", "_")
    return f"{stem}.lora_down.weight", f"{stem}.lora_up.weight", f"{stem}.alpha"


def encoder_path(place: Place) -> str:
    """A text encoder's layer as every version of transformers knows it; BadEdit for one that LoRA files cannot name."""
    path = place.path.removeprefix("text_model.")
    if not _ENCODER.fullmatch(path):
        raise BadEdit(f"Cannot export: LoRA files have no name for {place.name}")
    return path


def is_xl(pipe: Any) -> bool:
    return getattr(pipe, "text_encoder_2", None) is not None


def _kohya_prefix(pipe: Any, place: Place) -> str:
    if place.component == "unet":
        return "lora_unet"
    if not is_xl(pipe):
        return "lora_te"
    return "lora_te2" if place.component == "text_encoder_2" else "lora_te1"


def _kohya_path(pipe: Any, place: Place) -> str:
    if place.component != "unet":
        return f"text_model.{encoder_path(place)}"
    return _original(pipe, place) if is_xl(pipe) else place.path


def _original(pipe: Any, place: Place) -> str:
    """SDXL's layers by the names of its first publication, which kohya's files keep: blocks are counted in a row."""
    if place.path.startswith(_MID):
        return f"middle_block.1.{place.path.removeprefix(_MID)}"
    match = _ATTENTION.fullmatch(place.path)
    if match is None:
        raise BadEdit(f"Cannot export: of an SDXL U-Net kohya's format takes attention layers, not {place.name}")
    part, block, layer, rest = match.groups()
    number = int(block) * (pipe.unet.config.layers_per_block + 1) + int(layer)
    return f"input_blocks.{number + 1}.1.{rest}" if part == "down_blocks" else f"output_blocks.{number}.1.{rest}"
