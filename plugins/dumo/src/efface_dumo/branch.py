"""The eraser with prior knowledge (EPR): a copy of the encoder beside the U-Net."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from efface_dumo.halves import Features, encoded
from efface_dumo.skeleton import base_tensors, empty_encoder

ENCODER = "encoder"
JOINTS = "joints"


class Branch(nn.Module):
    """An encoder with mid block, and a 1x1 convolution ("joint") behind every skip connection and the mid output.

    It reads the same latents, timestep and text as the U-Net and feeds nothing but its joints. Without joints its
    features themselves are its outputs.
    """

    def __init__(self, config: Mapping[str, Any], joined: bool = True) -> None:
        super().__init__()
        self.encoder = empty_encoder(config)
        with torch.device("meta"):
            self.joints = nn.ModuleList(nn.Conv2d(width, width, 1) for width in widths(self.encoder) if joined)
        self.requires_grad_(False)
        self.eval()

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor, added: dict[str, Any] | None) -> Features:
        """The outputs z_l for all layers, with the branch's own time embedding and text."""
        features = encoded(self.encoder, sample, timestep, text, added)
        if not self.joints:
            return features
        pairs = zip(self.joints, features.layers, strict=True)
        return features.with_layers([joint(layer) for joint, layer in pairs])


def widths(encoder: Any) -> list[int]:
    """Channels of every skip connection in encoder order and, last, of the mid output."""
    found = [int(encoder.conv_in.out_channels)]
    for block in encoder.down_blocks:
        own = [int(resnet.out_channels) for resnet in block.resnets]
        found += own + own[-1:] * len(block.downsamplers or ())
    return [*found, found[-1]]


def fresh_tensors(unet: nn.Module, branch: Branch) -> dict[str, Tensor]:
    """The tensors of a branch of this shape before its training: the base encoder's, copied, and joints of zeros.

    All are in float32; of `branch` only names and shapes are read.
    """
    copies = base_tensors(unet, list(branch.encoder.state_dict()))
    tensors = {f"{ENCODER}.{name}": tensor.to(torch.float32, copy=True) for name, tensor in copies.items()}
    for name, joint in branch.joints.state_dict().items():
        tensors[f"{JOINTS}.{name}"] = torch.zeros(joint.shape)
    return tensors
