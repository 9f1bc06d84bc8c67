"""Soft columns in few: any map costs the same but for a constant, so the solution is the same."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from efface.solver import BadProblem, Columns, Problem, condensed, solve

D, OUT = 6, 4


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def columns(count: int, rank: int = D, seed: int = 0) -> Columns:
    """Columns with weights, whose inputs span `rank` dimensions."""
    inputs = random(D, rank, seed=seed) @ random(rank, count, seed=seed + 1)
    weights = random(count, seed=seed + 2).square()
    return Columns(inputs, random(OUT, count, seed=seed + 3), weights)


def map_of(soft: Columns) -> Tensor:
    return solve(Problem(lamb=0.5, soft=soft, keep=random(D, 3, seed=9))).delta.dense()


@pytest.mark.parametrize("rank", [2, D])
@pytest.mark.parametrize("parts", [1, 3])
def test_the_solution_is_that_of_all_columns(parts: int, rank: int) -> None:
    each = [columns(50, rank, seed=10 * part) for part in range(parts)]
    found = condensed(each)
    assert len(found) == min(D, rank * parts)
    assert found.shape == (OUT, D)
    assert torch.allclose(map_of(found), map_of(Columns.joined(each)), rtol=1e-10, atol=1e-12)


def test_columns_without_weights_weigh_one() -> None:
    plain = Columns(random(D, 20, seed=1), random(OUT, 20, seed=2))
    ones = Columns(plain.inputs, plain.change, torch.ones(20))
    assert torch.equal(condensed([plain]).inputs, condensed([ones]).inputs)


def test_columns_whose_scales_differ_widely_keep_their_say() -> None:
    small = columns(20, seed=3)
    small = Columns(1e-3 * small.inputs, small.change, small.weights)
    large = columns(20, rank=2, seed=4)
    assert torch.allclose(map_of(condensed([large, small])), map_of(Columns.joined([large, small])), rtol=1e-8)


def test_nothing_cannot_be_condensed() -> None:
    with pytest.raises(BadProblem, match="no columns"):
        condensed([])
