"""Copies of a U-Net, or of its first half, made from its configuration and plain tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

import efface
from efface.weights import weight_of

DECODER = ("up_blocks", "conv_norm_out", "conv_act", "conv_out")


def config_of(unet: Any) -> dict[str, Any]:
    """The configuration of a U-Net as JSON, with the image prompt of an IP-Adapter left out.

    Raises EffaceError for a U-Net with conditions that an edit cannot see, and for one that takes in more than the
    latents.
    """
    config = {name: value for name, value in dict(unet.config).items() if not name.startswith("_")}
    if config.get("encoder_hid_dim_type") == "ip_image_proj":
        config["encoder_hid_dim_type"] = None
    for name in ("time_cond_proj_dim", "class_embed_type", "num_class_embeds", "encoder_hid_dim_type"):
        if config.get(name) is not None:
            raise efface.EffaceError(
                f"DuMo's side network cannot follow this U-Net: its {name} is {config[name]!r}, a condition beside "
                "latents, timestep and text"
            )
    if config["in_channels"] != config["out_channels"]:
        raise efface.EffaceError(
            f"DuMo's side network cannot follow this U-Net: it takes {config['in_channels']} channels in and gives "
            f"{config['out_channels']}; inpainting and editing models are not supported"
        )
    return config


def empty_unet(config: Mapping[str, Any]) -> Any:
    """A U-Net of this configuration whose tensors have shapes and no storage."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        return UNet2DConditionModel.from_config(dict(config)).eval()


def empty_encoder(config: Mapping[str, Any]) -> Any:
    """The same without what follows the mid block."""
    unet = empty_unet(config)
    for name in DECODER:
        delattr(unet, name)
    return unet


def base_tensors(unet: nn.Module, names: list[str]) -> dict[str, Tensor]:
    """The U-Net's own tensors of these names, not copies: what adapters (LoRA) put around a layer is left out.

    Raises EffaceError for a layer whose weight is stored in a quantised form.
    """
    compiled = getattr(unet, "_orig_mod", None)
    inner = compiled if isinstance(compiled, nn.Module) else unet
    return {name: _base_tensor(inner, name) for name in names}


def _base_tensor(unet: nn.Module, name: str) -> Tensor:
    module: nn.Module = unet
    *path, leaf = name.split(".")
    for part in path:
        module = _unwrapped(getattr(module, part))
    tensor = weight_of(module, leaf).detach()
    if not tensor.is_floating_point() or type(module).__module__.startswith(("bitsandbytes", "torchao")):
        raise efface.EffaceError(
            f"unet.{name} is quantised; DuMo copies weights, so fit on the model in full or half precision"
        )
    return tensor


def _unwrapped(module: nn.Module) -> nn.Module:
    """The layer inside the adapters that PEFT put around it."""
    inner = getattr(module, "base_layer", None)
    return _unwrapped(inner) if isinstance(inner, nn.Module) else module


def fill(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a module of shapes these tensors as frozen parameters; they are shared, not copied."""
    module.load_state_dict(dict(tensors), strict=True, assign=True)
    module.requires_grad_(False)


def frozen_unet(unet: nn.Module, config: Mapping[str, Any], device: torch.device, dtype: torch.dtype) -> Any:
    """A U-Net with the base weights of another one and none of its adapters, hooks and processors.

    Where device and dtype are the same the two share memory.
    """
    copy = empty_unet(config)
    tensors = base_tensors(unet, list(copy.state_dict()))
    fill(copy, {name: tensor.to(device, dtype) for name, tensor in tensors.items()})
    return copy
