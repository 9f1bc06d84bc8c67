"""A pipeline's prompts, read in another way than by its own `encode_prompt`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

import efface

TOGETHER = 64  # prompts in one pass of the text encoder


class Reader:
    """A pipeline with another `encode_prompt`; all else is the pipeline's own."""

    def __init__(self, pipe: Any, encode_prompt: Callable[..., Any]) -> None:
        self._pipe = pipe
        self.encode_prompt = encode_prompt

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pipe, name)


def tokenized(model: efface.Model, phrases: Sequence[str], templates: Sequence[str]) -> efface.Encoded:
    """`Model.encode_phrases` without a pass of the text encoder: token positions, and embeddings of width 0."""

    def nothing(prompts: Sequence[str], **_: Any) -> tuple[torch.Tensor]:
        return (torch.empty(len(prompts), model.pipe.tokenizer.model_max_length, 0),)

    return efface.Model(Reader(model.pipe, nothing), model.registry).encode_phrases(phrases, templates)


def embedded(
    model: efface.Model, prompts: Sequence[str], clip_skip: int | None, batch_size: int = TOGETHER
) -> efface.Encoded:
    """The prompts, with the hidden states that a generation with this clip-skip reads."""
    encode = partial(model.pipe.encode_prompt, clip_skip=clip_skip)
    return efface.Model(Reader(model.pipe, encode), model.registry).encode(prompts, batch_size)
