"""The structures of full size have the published numbers of parameters; no memory is taken to see it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from efface.testing.full_size import Family, full_pipeline, full_tokenizer
from efface_hooks import points

PARAMETERS = {
    "sd1": {"unet": 859_520_964, "text_encoder": 123_060_480, "vae": 83_653_863},
    "sd2": {"unet": 865_910_724, "text_encoder": 340_387_840, "vae": 83_653_863},
    "sdxl": {
        "unet": 2_567_463_684,
        "text_encoder": 123_060_480,
        "text_encoder_2": 694_659_840,
        "vae": 83_653_863,
    },
}


def pipeline(family: Family) -> Any:
    with torch.device("meta"):
        return full_pipeline(family)


@pytest.mark.parametrize("family", PARAMETERS)
def test_every_part_has_as_many_parameters_as_published(family: Family) -> None:
    parts = {name: part for name, part in pipeline(family).components.items() if isinstance(part, nn.Module)}
    counts = {name: sum(weight.numel() for weight in part.parameters()) for name, part in parts.items()}
    assert counts == PARAMETERS[family]


@pytest.mark.parametrize(("family", "attentions", "skips"), [("sd1", 16, 12), ("sd2", 16, 12), ("sdxl", 70, 9)])
def test_the_points_are_those_of_the_family(family: Family, attentions: int, skips: int) -> None:
    pipe = pipeline(family)
    assert len(points(pipe, "cross_attn.out")) == attentions
    assert len(points(pipe, "skip")) == skips


def test_every_token_is_within_the_vocabulary() -> None:
    tokenizer = full_tokenizer()
    ids = tokenizer("a cat by van gogh", padding="max_length").input_ids
    assert len(tokenizer) == 49408
    assert len(ids) == 77
    assert (ids[0], ids[-1]) == (49406, 49407)
