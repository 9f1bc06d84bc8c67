"""Pipelines of full size with random weights: the structure of SD 1.5, SD 2.1 and SDXL at every width and depth.

They are as large and as slow as the real ones and draw noise. Structures are written from published figures; the number
of parameters is each family's to the last one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from efface.testing.pipelines import Family, assembled, spelling_tokenizer, vocabulary

TOKENS, LENGTH = 49408, 77

UNETS: dict[Family, dict[str, Any]] = {
    "sd1": {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
    "sd2": {
        "sample_size": 96,
        "cross_attention_dim": 1024,
        "attention_head_dim": (5, 10, 20, 20),
        "use_linear_projection": True,
    },
    "sdxl": {
        "sample_size": 128,
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "use_linear_projection": True,
        "cross_attention_dim": 2048,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 1280 + 6 * 256,
    },
}

# width, width between, blocks, heads, width of the projection, activation
SMALL = (768, 3072, 12, 12, 768, "quick_gelu")
ENCODERS: dict[Family, tuple[tuple[int, int, int, int, int, str], ...]] = {
    "sd1": (SMALL,),
    "sd2": ((1024, 4096, 23, 16, 512, "gelu"),),
    "sdxl": (SMALL, (1280, 5120, 32, 20, 1280, "gelu")),
}


def full_pipeline(family: Family = "sd1", *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Any:
    """A `StableDiffusionPipeline` (or XL) of full size: 4.3 GB in float32 for SD 1.x, 13.9 GB for SDXL."""
    with torch.random.fork_rng(devices=[]), _made_in(dtype):
        torch.manual_seed(seed)
        encoders = [_text_encoder(family, index) for index in range(len(ENCODERS[family]))]
        return assembled(family, _unet(family), encoders, _autoencoder(family), full_tokenizer)


def full_unet(family: Family = "sd1", *, seed: int = 0, **changes: Any) -> Any:
    """The U-Net of a family alone; `changes` are arguments of `UNet2DConditionModel` that differ, such as widths."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _unet(family, **changes).eval()


@contextmanager
def _made_in(dtype: torch.dtype) -> Iterator[None]:
    """Weights have this precision from the start: cast afterwards, they would need the memory of both."""
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(usual)


def _unet(family: Family, **changes: Any) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(**{**UNETS[family], **changes})


def full_tokenizer() -> Any:
    """A tokenizer with as many tokens as CLIP's, of which few are in use, for prompts of 77."""
    return spelling_tokenizer(*vocabulary(TOKENS), LENGTH)


def _text_encoder(family: Family, index: int) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    width, between, blocks, heads, projection, activation = ENCODERS[family][index]
    config = CLIPTextConfig(
        vocab_size=TOKENS,
        hidden_size=width,
        intermediate_size=between,
        projection_dim=projection,
        num_hidden_layers=blocks,
        num_attention_heads=heads,
        max_position_embeddings=LENGTH,
        hidden_act=activation,
        bos_token_id=TOKENS - 2,
        eos_token_id=TOKENS - 1,
        pad_token_id=TOKENS - 1,
    )
    return (CLIPTextModelWithProjection if index else CLIPTextModel)(config)


def _autoencoder(family: Family) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        sample_size=1024 if family == "sdxl" else 512,
        scaling_factor=0.13025 if family == "sdxl" else 0.18215,
    )
