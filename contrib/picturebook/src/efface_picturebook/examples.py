"""What the U-Net learns from: latents of rendered pictures, each with several captions."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from efface_picturebook.captions import caption
from efface_picturebook.render import render
from efface_picturebook.scene import SIZE, Scene, imagine

CAPTIONS = 4


@dataclass(frozen=True)
class Examples:
    """Scaled latents (N, 4, 16, 16) and token ids (N, CAPTIONS, 32)."""

    latents: Tensor
    ids: Tensor


def scene(seed: int, index: int) -> Scene:
    """The scene of example `index`."""
    return imagine(Random(f"{seed}-{index}"))


def pictures(seed: int, count: int) -> Tensor:
    """The first `count` pictures as uint8 (count, 3, 64, 64)."""
    drawn = np.empty((count, SIZE, SIZE, 3), np.uint8)
    for i in range(count):
        drawn[i] = np.asarray(render(scene(seed, i)))
    return torch.from_numpy(drawn).permute(0, 3, 1, 2).contiguous()


def captions(seed: int, index: int) -> list[str]:
    """The captions of example `index`."""
    random = Random(f"{seed}-{index}-captions")
    return [caption(scene(seed, index), random) for _ in range(CAPTIONS)]


def token_ids(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> Tensor:
    """Padded token ids (len(texts), 32) as the pipeline makes them."""
    length = tokenizer.model_max_length
    batch = tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
    ids: Tensor = batch.input_ids
    return ids


def caption_ids(tokenizer: PreTrainedTokenizerBase, seed: int, count: int) -> Tensor:
    """Token ids of all captions (count, CAPTIONS, 32)."""
    texts = [text for i in range(count) for text in captions(seed, i)]
    return token_ids(tokenizer, texts).view(count, CAPTIONS, -1)
