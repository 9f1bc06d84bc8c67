"""Tiny random pipelines with the structure of SD 1.x, 2.x and SDXL, built in memory in well under a second."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch

Family = Literal["sd1", "sd2", "sdxl"]
FAMILIES: tuple[Family, ...] = ("sd1", "sd2", "sdxl")
WORDS = [
    "a",
    "an",
    "the",
    "photo",
    "picture",
    "painting",
    "of",
    "in",
    "style",
    "by",
    "cat",
    "dog",
    "kitten",
    "bird",
    "fish",
    "car",
    "house",
    "tree",
    "red",
    "blue",
    "van",
    "gogh",
]
LENGTH = 16


def tiny_pipeline(family: Family = "sd1", *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Any:
    """A `StableDiffusionPipeline` (or XL) with random weights: 8 x 8 latents, prompts of 16 tokens.

    Down and up blocks, skip connections, cross-attention and text encoders are arranged as in the full-size family
    (SDXL: two text encoders, added conditions, transformer blocks of different depth); only the widths are small.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        autoencoder, unet, encoders = _autoencoder(), _unet(family), [_text_encoder(family, 16)]
        if family == "sdxl":
            encoders.append(_text_encoder(family, 24, pooled=True))
    pipe = assembled(family, unet, encoders, autoencoder, tiny_tokenizer)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            torch.nn.Module.to(part, dtype)  # diffusers' own warns
    return pipe


def assembled(
    family: Family, unet: Any, encoders: Sequence[Any], autoencoder: Any, tokenizer: Callable[[], Any]
) -> Any:
    """The pipeline of a family from its networks, with that family's scheduler; every encoder gets a tokenizer."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline

    parts: dict[str, Any] = {
        "vae": autoencoder.eval(),
        "unet": unet.eval(),
        "text_encoder": encoders[0].eval(),
        "tokenizer": tokenizer(),
        "scheduler": DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
            prediction_type="v_prediction" if family == "sd2" else "epsilon",
        ),
    }
    if family == "sdxl":
        parts |= {"text_encoder_2": encoders[1].eval(), "tokenizer_2": tokenizer()}
        pipe: Any = StableDiffusionXLPipeline(**parts, add_watermarker=False)
    else:
        parts |= {"safety_checker": None, "feature_extractor": None, "image_encoder": None}
        pipe = StableDiffusionPipeline(**parts, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def tiny_tokenizer() -> Any:
    """A `CLIPTokenizer` of single letters and a few whole words, so that every text tokenizes."""
    return spelling_tokenizer(*vocabulary(), LENGTH)


def spelling_tokenizer(vocab: dict[str, int], merges: list[tuple[str, str]], length: int) -> Any:
    """A `CLIPTokenizer` of these tokens, for prompts of so many."""
    from transformers import CLIPTokenizer

    return CLIPTokenizer(
        vocab=vocab,
        merges=merges,
        unk_token="<|endoftext|>",
        bos_token="<|startoftext|>",
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        model_max_length=length,
    )


def vocabulary(size: int = 0) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Tokens with their numbers, and merges; filled up to a size with tokens that no text has."""
    letters = [chr(code) for code in range(33, 127)]
    tokens = dict.fromkeys([*letters, *(f"{letter}</w>" for letter in letters)])
    merges: dict[tuple[str, str], None] = {}
    for word in WORDS:
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        while len(pieces) > 1:
            merges[pieces[0], pieces[1]] = None
            pieces = [pieces[0] + pieces[1], *pieces[2:]]
            tokens[pieces[0]] = None
    unused = [f"<|unused {index}|>" for index in range(size - len(tokens) - 2)]
    names = [*tokens, *unused, "<|startoftext|>", "<|endoftext|>"]
    return {name: index for index, name in enumerate(names)}, list(merges)


def _unet(family: Family) -> Any:
    from diffusers import UNet2DConditionModel

    shared = {"sample_size": 8, "in_channels": 4, "out_channels": 4, "norm_num_groups": 4, "layers_per_block": 2}
    if family == "sdxl":
        return UNet2DConditionModel(
            **shared,
            block_out_channels=(8, 16, 16),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 1, 2),
            attention_head_dim=(1, 2, 2),
            use_linear_projection=True,
            cross_attention_dim=40,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=24 + 6 * 8,
        )
    return UNet2DConditionModel(
        **shared,
        block_out_channels=(8, 16, 16, 16),
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        attention_head_dim=2 if family == "sd1" else (1, 2, 2, 2),
        use_linear_projection=family == "sd2",
        cross_attention_dim=16,
    )


def _text_encoder(family: Family, width: int, pooled: bool = False) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    vocab, _ = vocabulary()
    config = CLIPTextConfig(
        vocab_size=len(vocab),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        hidden_act="quick_gelu" if family == "sd1" else "gelu",
        bos_token_id=vocab["<|startoftext|>"],
        eos_token_id=vocab["<|endoftext|>"],
        pad_token_id=vocab["<|endoftext|>"],
    )
    return CLIPTextModelWithProjection(config) if pooled else CLIPTextModel(config)


def _autoencoder() -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        latent_channels=4,
        layers_per_block=1,
        sample_size=16,
    )
