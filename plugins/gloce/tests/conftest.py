"""Tiny pipelines and quick fits that the tests share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import efface
from efface.testing import tiny_pipeline

QUICK: dict[str, object] = {"steps": 5, "seeds": 2, "boundary": "dog", "target_rank": 4, "tau": 0.5}

Fit = Callable[..., efface.Erasure]


@pytest.fixture(scope="session")
def pipe() -> Any:
    """A pipeline that every test leaves as it was."""
    return tiny_pipeline("sd1")


@pytest.fixture(scope="session")
def quick() -> Fit:
    """A fit of "cat" that takes four calls of the U-Net."""

    def fit(pipe: Any, concept: Any = "cat", **options: Any) -> efface.Erasure:
        given = {"anchor": "fish"} if isinstance(concept, str) else {}
        settings = QUICK | options.pop("settings", {})
        return efface.erase(pipe, concept, method="gloce", **(given | {"settings": settings} | options))

    return fit


@pytest.fixture(scope="session")
def cat(pipe: Any, quick: Fit) -> efface.Erasure:
    return quick(pipe)


@pytest.fixture(scope="session")
def dog(pipe: Any, quick: Fit) -> efface.Erasure:
    return quick(pipe, "dog", settings={"boundary": "bird", "tau": 1.5, "map_rank": 1, "eta": 2.0})


@pytest.fixture(scope="session")
def bird(pipe: Any, quick: Fit) -> efface.Erasure:
    return quick(pipe, "bird")


@pytest.fixture(scope="session")
def with_threshold() -> Callable[[efface.Erasure, float], efface.Erasure]:
    """The erasure with another threshold at every layer: below 0 every gate is open, above 1 every gate is closed."""

    def changed(erasure: efface.Erasure, value: float) -> efface.Erasure:
        tensors = {
            name: torch.full_like(tensor, value) if name.endswith(".threshold") else tensor
            for name, tensor in erasure.tensors.items()
        }
        return efface.Erasure(erasure.header, tensors)

    return changed


@pytest.fixture(scope="session")
def latents() -> Callable[..., Tensor]:
    def drawn(pipe: Any, prompt: str = "a cat", steps: int = 3, **options: Any) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        found: Tensor = pipe(
            prompt, num_inference_steps=steps, generator=generator, output_type="latent", **options
        ).images
        return found

    return drawn


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[int, int]]:
    """How many calls of the U-Net there were since one asked last, and how many guided pictures in them."""
    rows: list[int] = []
    predict = efface.Model.predict

    def counting(self: efface.Model, latents: Tensor, *rest: Any) -> Tensor:
        rows.append(len(latents))
        return predict(self, latents, *rest)

    def taken() -> tuple[int, int]:
        found = len(rows), sum(rows) // 2
        rows.clear()
        return found

    monkeypatch.setattr(efface.Model, "predict", counting)
    return taken
