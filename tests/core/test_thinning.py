"""A soft part that moves little is kept in few factors, and hard columns are met all the same."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from efface.solver import Columns, Problem, residual, solve
from efface.solver.metric import Metric
from efface.solver.soft import soft_part
from efface.solver.thinning import thinned
from efface_hooks.delta import Dense, LowRank

D, SOFT = 400, 300


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def problem() -> Problem:
    """Many soft columns, whose changes lie mostly in a few directions."""
    inputs = random(D, SOFT, seed=1)
    change = random(D, 10, seed=2) @ random(10, SOFT, seed=3) + 0.02 * random(D, SOFT, seed=4)
    hard = Columns.pairs(random(D, 3, seed=5), random(D, 3, seed=6))
    return Problem(soft=Columns(inputs, change, random(SOFT, seed=7).abs()), hard=hard, lamb=1.0)


def off(problem: Problem, error: float) -> float:
    """|(E_s - E) L|_F / |E_s L|_F, L being taken from G itself."""
    assert problem.soft is not None
    metric = Metric.of(problem)
    weighted = problem.soft.inputs * problem.soft.mass
    root = torch.linalg.cholesky(problem.lamb * torch.eye(D, dtype=torch.float64) + weighted @ problem.soft.inputs.T)
    whole = soft_part(problem, metric).dense()
    found = thinned(problem, metric, error).dense()
    return float(((found - whole) @ root).norm() / (whole @ root).norm())


@pytest.mark.parametrize("error", [0.3, 0.1, 0.03])
def test_no_more_is_lost_than_was_allowed_and_no_more_is_kept_than_that_takes(problem: Problem, error: float) -> None:
    metric = Metric.of(problem)
    found = thinned(problem, metric, error)
    assert isinstance(soft_part(problem, metric), Dense)
    assert isinstance(found, LowRank)
    assert off(problem, error) <= error * (1 + 1e-6)
    assert problem.soft is not None
    product = (problem.soft.change * problem.soft.mass) @ metric.whiten(problem.soft.inputs).T
    values = torch.linalg.svdvals(product).square()
    tail = values.flip(0).cumsum(0).flip(0) / values.sum()
    assert found.rank <= 1.1 * int((tail > error**2).sum()) + 1  # the finder is random, and nearly the best


def test_hard_columns_are_met_as_exactly(problem: Problem) -> None:
    assert problem.hard is not None
    solution = solve(problem, thin=0.1)
    assert isinstance(solution.delta, LowRank)
    assert float(residual(solution.delta, problem.hard).max()) < 1e-9


def test_without_an_error_nothing_is_left_out(problem: Problem) -> None:
    whole = solve(problem).delta
    assert isinstance(whole, Dense)
    found = solve(problem, thin=0.0).delta
    assert isinstance(found, Dense)
    assert torch.equal(found.weight, whole.weight)


def test_where_no_factors_are_saved_the_whole_map_stays(problem: Problem) -> None:
    metric = Metric.of(problem)
    found = thinned(problem, metric, 1e-9)
    assert isinstance(found, Dense)
    assert torch.equal(found.weight, soft_part(problem, metric).dense())


def test_the_same_problem_gives_the_same_bits(problem: Problem) -> None:
    metric = Metric.of(problem)
    one, other = (thinned(problem, metric, 0.1) for _ in range(2))
    assert isinstance(one, LowRank)
    assert isinstance(other, LowRank)
    assert torch.equal(one.up, other.up)
    assert torch.equal(one.down, other.down)
