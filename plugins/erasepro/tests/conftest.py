from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import efface
from efface.testing import tiny_pipeline

EXACT = {"columns": "tokens", "templates": 1, "pads": 1, "invariants": 2, "prior": 0, "damping": 0.0, "budget": None}
"""Settings under which a tiny text encoder of 16 dimensions can do all that is asked of it exactly."""

Erase = Callable[..., efface.Erasure]
Reads = Callable[..., Tensor]


@pytest.fixture(scope="session")
def pipe() -> Any:
    return tiny_pipeline("sd1")


@pytest.fixture(scope="session")
def model(pipe: Any) -> efface.Model:
    return efface.Model(pipe)


@pytest.fixture(scope="session")
def erase() -> Erase:
    """Cats become dogs, exactly, unless settings say otherwise."""

    def erased(pipe: Any, concept: Any = "cat", **settings: Any) -> efface.Erasure:
        keep = settings.pop("keep", ["a red house", "fish"])
        anchor = settings.pop("anchor", "dog")
        preset = settings.pop("preset", None)
        given = settings if preset else EXACT | settings
        return efface.erase(pipe, concept, anchor=anchor, keep=keep, method="erasepro", preset=preset, settings=given)

    return erased


@pytest.fixture(scope="session")
def reads() -> Reads:
    """The text (T, d) that the keys of a picture's cross-attention read, as it is generated."""

    def read(pipe: Any, prompt: str, **options: Any) -> Tensor:
        seen: list[Tensor] = []
        layer = next(module for name, module in pipe.unet.named_modules() if name.endswith("attn2.to_k"))
        handle = layer.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        try:
            with torch.no_grad():
                pipe(prompt, num_inference_steps=1, output_type="latent", **options)
        finally:
            handle.remove()
        return seen[0][-1].double()

    return read
