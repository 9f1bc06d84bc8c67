"""A CLIP model of a few thousand weights, all set by hand, whose answers are known: it reads words off pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from efface.testing.pipelines import spelling_tokenizer

PATCH = 4
SIDE = 2 * PATCH
LENGTH = 77


def save_reading_clip(folder: str | Path, words: Sequence[str]) -> None:
    """Write a model to a folder that tells up to 15 words, in texts and in what `picture` makes.

    Every word, and every pixel of a patch, has an axis of its own; attention is the mean over what was seen so far,
    and nothing else happens. Between a text of one word and its picture the cosine is 1, to any other it is below 0.
    """
    from transformers import CLIPModel

    tokenizer = _tokenizer(words)
    model = CLIPModel(_config(tokenizer)).eval()
    with torch.no_grad():
        _quiet(model)
        _embed(model, [tokenizer.convert_tokens_to_ids(f"{word}</w>") for word in words])
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _processor().save_pretrained(folder)


def picture(*shown: int, side: int = SIDE) -> Image.Image:
    """A black picture in whose patches the pixels with these numbers are white, the first ones brightest."""
    patch = np.zeros(PATCH * PATCH)
    for order, number in enumerate(shown):
        patch[number] = 255 // (order + 1)
    pixels = np.tile(patch.reshape(PATCH, PATCH), (side // PATCH, side // PATCH))
    return Image.fromarray(np.repeat(pixels[..., None], 3, axis=2).astype(np.uint8))


def _tokenizer(words: Sequence[str]) -> Any:
    """Words that are one token each, and all others letter by letter."""
    letters = [chr(code) for code in range(33, 127)]
    tokens = dict.fromkeys([*letters, *(f"{letter}</w>" for letter in letters)])
    merges: dict[tuple[str, str], None] = {}
    for word in words:
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        while len(pieces) > 1:
            merges[pieces[0], pieces[1]] = None
            pieces = [pieces[0] + pieces[1], *pieces[2:]]
            tokens[pieces[0]] = None
    names = [*tokens, "<|startoftext|>", "<|endoftext|>"]
    return spelling_tokenizer({name: place for place, name in enumerate(names)}, list(merges), LENGTH)


def _config(tokenizer: Any) -> Any:
    from transformers import CLIPConfig

    width = PATCH * PATCH
    shared = {"hidden_size": width, "intermediate_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1}
    text = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": LENGTH,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {"image_size": SIDE, "patch_size": PATCH}
    return CLIPConfig(text_config=shared | text, vision_config=shared | vision, projection_dim=width)


def _quiet(model: Any) -> None:
    """Attention that takes the mean, and otherwise nothing but the way through."""
    for name, weight in model.named_parameters():
        if name.endswith(("v_proj.weight", "out_proj.weight", "_projection.weight")):
            weight.copy_(torch.eye(len(weight)))
        elif "norm" in name or "layrnorm" in name:
            weight.fill_(float(name.endswith("weight")))
        elif name != "logit_scale":
            weight.zero_()


def _embed(model: Any, tokens: Sequence[int]) -> None:
    words: Tensor = model.text_model.embeddings.token_embedding.weight
    for axis, token in enumerate(tokens):
        words[token, axis] = 1
    patch: Tensor = model.vision_model.embeddings.patch_embedding.weight
    for axis in range(PATCH * PATCH):
        patch[axis, :, axis // PATCH, axis % PATCH] = 1


def _processor() -> Any:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    side = {"height": SIDE, "width": SIDE}
    return CLIPImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size=side, image_mean=[0.0] * 3, image_std=[1.0] * 3
    )
