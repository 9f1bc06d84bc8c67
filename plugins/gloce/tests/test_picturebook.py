"""On a model that has learnt to draw: the concept's picture changes, one in which no gate opens does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import efface
from efface_gloce.maps import GateRecorder, listening

pytest.importorskip("efface_picturebook")

Draw = Callable[..., Tensor]
STEPS = 6


@pytest.fixture(scope="module")
def picturebook() -> Any:
    return efface.load("picturebook")


@pytest.fixture(scope="module")
def no_cat(picturebook: Any) -> efface.Erasure:
    settings = {"steps": 10, "seeds": 1, "boundary": ("dog", "fish", "bird")}
    return efface.erase(
        picturebook, "cat", anchor="fish", method="gloce", keep=["a house", "a picture"], settings=settings
    )


def opened(recorder: GateRecorder) -> bool:
    (maps,) = recorder.maps()
    return any(one.share > 0 for one in maps)


def test_gates_open_on_the_concept_and_a_picture_without_it_is_the_base_bit_for_bit(
    picturebook: Any, no_cat: efface.Erasure, latents: Draw
) -> None:
    found = {}
    for prompt in ("a picture of a cat", "a picture of a house"):
        base, recorder = latents(picturebook, prompt, STEPS), GateRecorder(1)
        with efface.Editor(picturebook, no_cat, registry=listening(recorder)):
            edited = latents(picturebook, prompt, STEPS)
        found[prompt] = opened(recorder), torch.equal(edited, base)
        assert torch.equal(latents(picturebook, prompt, STEPS), base)
    assert found == {"a picture of a cat": (True, False), "a picture of a house": (False, True)}


def test_the_projectors_of_a_fit_are_projectors(no_cat: efface.Erasure) -> None:
    for name, tensor in no_cat.tensors.items():
        if name.endswith((".map_basis", ".gate_basis")):
            gram = tensor.mT @ tensor
            torch.testing.assert_close(gram, torch.eye(gram.shape[-1]).expand_as(gram), rtol=0, atol=1e-5)
        if name.endswith(".update"):
            assert torch.linalg.matrix_norm(tensor, 2).max() <= 1 + 1e-5
