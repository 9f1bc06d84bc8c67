"""The two halves of a U-Net's pass: encoder with mid block, and decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Features:
    """What an encoder hands to a decoder.

    `layers` are the skip connections in encoder order and, last, the mid block's output, each (B, C_l, h_l, w_l);
    `time` (B, E) is the embedding that all blocks get, `text` (B, T, D) what cross-attention reads.
    """

    layers: tuple[Tensor, ...]
    time: Tensor
    text: Tensor

    def rows(self, part: slice | Tensor) -> Features:
        """The features of some rows of the batch."""
        return Features(tuple(layer[part] for layer in self.layers), self.time[part], self.text[part])

    def with_layers(self, layers: Sequence[Tensor]) -> Features:
        return Features(tuple(layers), self.time, self.text)

    @staticmethod
    def joined(parts: Sequence[Features]) -> Features:
        """The features of several batches as those of one."""
        layers = zip(*(part.layers for part in parts), strict=True)
        return Features(
            tuple(torch.cat(same) for same in layers),
            torch.cat([part.time for part in parts]),
            torch.cat([part.text for part in parts]),
        )


def encoded(unet: Any, sample: Tensor, timestep: Tensor, text: Tensor, added: dict[str, Any] | None) -> Features:
    """Encoder and mid block of a `UNet2DConditionModel`, or of one without a decoder.

    `sample` (B, C, h, w), `timestep` (B,), `text` (B, T, D), `added` SDXL's further conditions.
    """
    if unet.config.center_input_sample:
        sample = 2 * sample - 1.0
    time = unet.time_embedding(unet.get_time_embed(sample, timestep))
    more = unet.get_aug_embed(time, text, added)
    time = time if more is None else time + more
    if unet.time_embed_act is not None:
        time = unet.time_embed_act(time)
    text = unet.process_encoder_hidden_states(text, added)
    hidden = unet.conv_in(sample)
    skips = [hidden]
    for block in unet.down_blocks:
        hidden, made = block(hidden_states=hidden, temb=time, **_text(block, text))
        skips += made
    if unet.mid_block is not None:
        hidden = unet.mid_block(hidden, time, **_text(unet.mid_block, text))
    return Features((*skips, hidden), time, text)


def decoded(unet: Any, features: Features) -> Tensor:
    """The prediction (B, C, h, w) that a U-Net's decoder makes of features."""
    *skips, hidden = features.layers
    odd = any(size % 2**unet.num_upsamplers for size in skips[0].shape[-2:])
    for block in unet.up_blocks:
        count = len(block.resnets)
        skips, taken = skips[:-count], tuple(skips[-count:])
        size = skips[-1].shape[2:] if odd and skips else None
        hidden = block(
            hidden_states=hidden,
            temb=features.time,
            res_hidden_states_tuple=taken,
            upsample_size=size,
            **_text(block, features.text),
        )
    if unet.conv_norm_out:
        hidden = unet.conv_act(unet.conv_norm_out(hidden))
    prediction: Tensor = unet.conv_out(hidden)
    return prediction


def _text(block: Any, text: Tensor) -> dict[str, Tensor]:
    return {"encoder_hidden_states": text} if getattr(block, "has_cross_attention", False) else {}
