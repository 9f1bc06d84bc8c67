"""The edit, with a few tensors and no model."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from efface_adavd.adavd import told
from efface_adavd.decomposition import Decomposition, Shift

ALWAYS = Shift(slope=0.0, middle=0.0, most=2.0)  # 2 / (1 + 1): a shift of 1 at any similarity
X, Y, Z = torch.eye(3)


def edited(values: Tensor, concept: Tensor, shift: Shift = ALWAYS, **parts: Tensor) -> Tensor:
    """Values (T, 3) of one text, whose first token is put before them and taken off again."""
    given = {"centre": torch.zeros(len(values) + 1, 3)} | parts
    text = torch.cat([torch.ones(1, 3), values])
    found = Decomposition(concept=concept, shift=shift, **given)(text[None], None)[0]  # type: ignore[arg-type]
    assert torch.equal(found[0], text[0]), "the first token is left alone"
    return found[1:]


def test_a_shift_of_one_leaves_the_orthogonal_complement() -> None:
    concept = torch.tensor([[3.0, 4.0, 0.0]])
    values = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(edited(values, concept) @ concept.T, torch.zeros(5, 1), atol=1e-6)
    assert torch.equal(edited(Z[None], concept), Z[None])


def test_it_is_the_formula_of_the_published_code() -> None:
    slope, middle, most = 100.0, 0.93, 2.0
    concept, value = torch.tensor([1.0, 2.0, 0.5]), torch.tensor([1.2, 1.9, 0.3])
    cosine = float(concept @ value / concept.norm() / value.norm())
    share = float(concept @ value / (concept @ concept))
    wanted = value - most / (1 + math.exp(-slope * (cosine - middle))) * share * concept
    assert torch.allclose(edited(value[None], concept[None], Shift(slope, middle, most))[0], wanted, atol=1e-6)


def test_what_is_not_alike_stays() -> None:
    sharp = Shift(slope=1000.0, middle=0.9, most=1.0)
    found = edited(torch.stack([X, X + Y, Y]), X[None], sharp)
    assert torch.allclose(found, torch.stack([0 * X, X + Y, Y]), atol=1e-6)


def test_each_token_meets_the_one_it_is_most_like() -> None:
    found = edited(torch.stack([2 * X + Y, X + 2 * Y]), torch.stack([X, Y]))
    assert torch.equal(found, torch.stack([Y, X]))


def test_as_much_of_the_anchor_takes_its_place() -> None:
    found = edited(torch.stack([X, 2 * X + Y]), X[None], instead=Z[None])
    assert torch.equal(found, torch.stack([Z, 2 * Z + Y]))


def test_values_are_taken_relative_to_the_centre() -> None:
    centre = torch.stack([0 * X, 5 * Y, 7 * Y])
    found = edited(torch.stack([5 * Y + X, 7 * Y]), X[None], centre=centre)
    assert torch.equal(found, torch.stack([5 * Y, 7 * Y]))


def test_a_text_of_several_prompts_is_taken_part_by_part() -> None:
    one = Decomposition(concept=X[None], shift=ALWAYS, centre=torch.stack([0 * X, 5 * Y]))
    text = torch.stack([Z, 5 * Y + X, Z, 5 * Y + X])
    assert torch.equal(one.centred(text[None])[0], torch.stack([Z, X, Z, X]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_half(dtype: torch.dtype) -> None:
    assert edited(torch.stack([X]).to(dtype), X[None]).dtype == torch.float32  # the text before it is float32 here
    one = Decomposition(concept=X[None], shift=ALWAYS, centre=torch.zeros(2, 3))
    assert one(torch.stack([Z, X]).to(dtype)[None], None).dtype == dtype  # type: ignore[arg-type]


def test_how_far_a_prompt_moves_is_reported() -> None:
    one = Decomposition(concept=X[None], shift=Shift(1000.0, 0.5, 1.0), centre=torch.zeros(2, 3))
    moved = one.moved(torch.stack([torch.stack([Y, X]), torch.stack([X, Y])]))
    assert torch.allclose(moved, torch.tensor([0.5**0.5, 0.0]))
    assert told(["a", "b"], [moved, 0 * moved]) == {"a": 0.354, "b": 0.0}
