"""The solver, against equations solved another way."""

import itertools
import json
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from efface.solver import (
    BadProblem,
    Columns,
    ConflictError,
    Policy,
    Problem,
    SingularError,
    duals,
    prices,
    residual,
    solve,
    through_duals,
)
from efface_hooks.delta import Dense, LowRank

D = 24
quick = settings(derandomize=True, max_examples=20, deadline=None)
seeds = st.integers(0, 2**16)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def features(count: int, seed: int = 0, d: int = D) -> Tensor:
    """Columns with a common part, as the features of a text encoder have."""
    return random(d, 1, seed=99) + random(d, count, seed=seed)


def moves(count: int, seed: int = 0, weights: Tensor | None = None, d: int = D) -> Columns:
    return Columns.pairs(features(count, seed, d), features(count, seed + 1, d), weights)


def full(seed: int = 0) -> Problem:
    """A problem with everything in it."""
    root = random(D, D, seed=seed + 4)
    return Problem(
        soft=moves(7, seed, weights=random(7, seed=seed + 2).abs()),
        hard=moves(4, seed + 20),
        keep=features(10, seed + 3),
        keep_weight=0.3,
        gram=root @ root.T / D,
        lamb=0.2,
    )


def edit(problem: Problem, conflicts: Policy = "raise") -> Tensor:
    return solve(problem, conflicts).delta.dense()


def soft_of(problem: Problem) -> Columns:
    assert problem.soft is not None
    return problem.soft


def hard_of(problem: Problem) -> Columns:
    assert problem.hard is not None
    return problem.hard


def distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


def metric(problem: Problem) -> Tensor:
    """G, term by term."""
    _, d = problem.shape
    total = problem.lamb * torch.eye(d, dtype=torch.float64)
    if problem.gram is not None:
        total = total + problem.gram
    if problem.keep is not None:
        total = total + problem.keep_weight * problem.keep @ problem.keep.T
    if problem.soft is not None:
        total = total + soft_of(problem).inputs @ soft_of(problem).mass.diag() @ soft_of(problem).inputs.T
    return total


def cost(problem: Problem, change: Tensor) -> float:
    """The cost of `Problem`, term by term."""
    total = problem.lamb * change.square().sum()
    if problem.gram is not None:
        total = total + torch.trace(change @ problem.gram @ change.T)
    if problem.keep is not None:
        total = total + problem.keep_weight * (change @ problem.keep).square().sum()
    if problem.soft is not None:
        missed = change @ soft_of(problem).inputs - soft_of(problem).change
        total = total + (soft_of(problem).mass * missed.square().sum(0)).sum()
    return float(total)


def by_least_squares(problem: Problem) -> Tensor:
    """The soft problem as one tall system of equations, one row for each thing that is wanted."""
    m, d = problem.shape
    root = soft_of(problem).mass.sqrt()
    rows = [(soft_of(problem).inputs * root).T, problem.lamb**0.5 * torch.eye(d, dtype=torch.float64)]
    if problem.keep is not None:
        rows.append(problem.keep_weight**0.5 * problem.keep.T)
    if problem.gram is not None:
        rows.append(torch.linalg.cholesky(problem.gram).T)
    wanted = [(soft_of(problem).change * root).T, *(row.new_zeros(len(row), m) for row in rows[1:])]
    solution: Tensor = torch.linalg.lstsq(torch.cat(rows), torch.cat(wanted), driver="gelsd").solution
    return solution.T


def by_kkt(problem: Problem) -> Tensor:
    """Stationarity and constraints as one square system."""
    m, d = problem.shape
    hard, n = hard_of(problem), len(hard_of(problem))
    wanted = torch.zeros(d, m, dtype=torch.float64)
    if problem.soft is not None:
        wanted = soft_of(problem).inputs @ soft_of(problem).mass.diag() @ soft_of(problem).change.T
    top = torch.cat([2 * metric(problem), hard.inputs], 1)
    bottom = torch.cat([hard.inputs.T, torch.zeros(n, n, dtype=torch.float64)], 1)
    solution: Tensor = torch.linalg.solve(torch.cat([top, bottom]), torch.cat([2 * wanted, hard.change.T]))
    return solution[:d].T


# What is solved


def test_soft_columns_are_solved_as_least_squares() -> None:
    problem = replace(full(), hard=None)
    assert distance(edit(problem), by_least_squares(problem)) < 1e-10


def test_hard_columns_are_solved_as_a_constrained_minimum() -> None:
    problem = replace(full(), soft=None)
    assert distance(edit(problem), by_kkt(problem)) < 1e-10


def test_soft_and_hard_columns_are_solved_together() -> None:
    problem = full()
    assert distance(edit(problem), by_kkt(problem)) < 1e-10


def test_maps_need_not_be_square() -> None:
    hard = Columns(features(3), random(10, 3, seed=1))
    soft = Columns(features(5, 2), random(10, 5, seed=3))
    problem = Problem(soft=soft, hard=hard, lamb=0.3)
    assert edit(problem).shape == (10, D)
    assert distance(edit(problem), by_kkt(problem)) < 1e-10


def test_more_soft_columns_than_dimensions_are_solved_as_least_squares() -> None:
    problem = Problem(soft=moves(3 * D), lamb=0.1)
    assert distance(edit(problem), by_least_squares(problem)) < 1e-10


def test_one_column_is_enough() -> None:
    target, anchor = features(1), features(1, seed=1)
    expected = (anchor - target) @ target.T / target.square().sum()
    assert distance(edit(Problem(hard=Columns.pairs(target, anchor), lamb=7.0)), expected) < 1e-14


def test_without_anything_to_keep_it_is_the_pseudoinverse() -> None:
    targets, anchors = features(5), features(5, seed=1)
    problem = Problem(hard=Columns.pairs(targets, anchors), lamb=0.7)
    assert distance(edit(problem), (anchors - targets) @ torch.linalg.pinv(targets)) < 1e-10


def test_nothing_feasible_is_cheaper() -> None:
    problem = full()
    best = edit(problem)
    free = torch.eye(D) - hard_of(problem).inputs @ torch.linalg.pinv(hard_of(problem).inputs)
    for seed, size in itertools.product(range(5), (1.0, 1e-2, -1e-2)):
        other = best + size * random(D, D, seed=seed) @ free
        assert cost(problem, other) > cost(problem, best)


def test_the_price_of_hard_columns_is_the_one_derived() -> None:
    problem = replace(full(), soft=None)
    hard = hard_of(problem)
    gaps = hard.inputs.T @ torch.linalg.solve(metric(problem), hard.inputs)
    expected = torch.trace(hard.change @ torch.linalg.solve(gaps, hard.change.T))
    assert cost(problem, edit(problem)) == pytest.approx(float(expected), rel=1e-9)


def test_one_map_serves_every_layer() -> None:
    problem = full()
    weight = random(9, D, seed=50)
    layer = replace(
        problem,
        soft=replace(soft_of(problem), change=weight @ soft_of(problem).change),
        hard=replace(hard_of(problem), change=weight @ hard_of(problem).change),
    )
    assert distance(edit(layer), weight @ edit(problem)) < 1e-10


@pytest.mark.parametrize("count", [1, 10, 100])
def test_hard_columns_are_met_to_the_precision_of_the_weight(count: int) -> None:
    targets, anchors = features(count, d=256), features(count, 1, d=256)
    problem = Problem(hard=Columns.pairs(targets, anchors), keep=features(300, 2, d=256), lamb=0.5)
    change = edit(problem)
    weight = random(40, 256, seed=5)

    def missed(dtype: torch.dtype) -> float:
        stored = (weight + weight @ change).to(dtype).double()
        return float(((stored @ targets - weight @ anchors).norm(dim=0) / (weight @ anchors).norm(dim=0)).max())

    assert missed(torch.float64) < 1e-12
    assert missed(torch.float32) < 1e-5
    assert 1e-5 < missed(torch.float16) < 1e-2


# Soft columns approach hard ones


@pytest.mark.parametrize("weight", [0.1, 1.0, 10.0, 1000.0])
def test_soft_columns_miss_by_the_share_derived(weight: float) -> None:
    columns, keep = moves(4), features(40, 2)
    soft = replace(columns, weights=torch.full((4,), weight, dtype=torch.float64))
    change = edit(Problem(soft=soft, keep=keep, lamb=0.5))
    prior = keep @ keep.T + 0.5 * torch.eye(D)
    overlap = columns.inputs.T @ torch.linalg.solve(prior, columns.inputs)
    expected = -columns.change @ torch.linalg.inv(torch.eye(4) + weight * overlap)
    assert distance(change @ columns.inputs - columns.change, expected) < 1e-9


def test_an_enormous_weight_approaches_a_hard_column() -> None:
    columns, keep = moves(4), features(40, 2)
    soft = replace(columns, weights=torch.full((4,), 1e9))
    strict = edit(Problem(hard=columns, keep=keep, lamb=0.5))
    assert distance(edit(Problem(soft=soft, keep=keep, lamb=0.5)), strict) < 1e-6


@pytest.mark.parametrize("kept", [0, 5])
def test_a_lone_soft_column_misses_what_the_leverage_says(kept: int) -> None:
    column, keep = moves(1), features(kept, 2)
    leverage = solve(Problem(hard=column, keep=keep, lamb=0.5)).report.leverage
    soft = replace(column, weights=torch.tensor([3.0]))
    missed = solve(Problem(soft=soft, keep=keep, lamb=0.5)).report.soft_residual[0]
    assert missed == pytest.approx(1 / (1 + 3 * leverage), rel=1e-10)


def test_identical_soft_columns_count_as_often_as_they_occur() -> None:
    column = moves(1)
    twice = Columns.joined([column, column])
    heavy = replace(column, weights=torch.tensor([2.0]))
    assert distance(edit(Problem(soft=twice, lamb=0.5)), edit(Problem(soft=heavy, lamb=0.5))) < 1e-13
    assert distance(edit(Problem(soft=column, lamb=0.5)), edit(Problem(soft=heavy, lamb=0.5))) > 1e-3


def test_a_soft_column_of_weight_zero_is_not_there() -> None:
    weights = torch.tensor([1.0, 0.0, 2.0])
    columns = moves(3, weights=weights)
    others = moves(3)
    kept = Columns(others.inputs[:, [0, 2]], others.change[:, [0, 2]], weights[[0, 2]])
    assert distance(edit(Problem(soft=columns, lamb=0.5)), edit(Problem(soft=kept, lamb=0.5))) < 1e-13


# Invariants


def test_invariants_do_not_move() -> None:
    loud = 1000 * random(D, 1, seed=7)
    still = Columns.still(torch.cat([loud, features(2, 8)], 1))
    targets = features(3) + loud
    moved = Columns.pairs(targets, features(3, 1) + loud)
    change = edit(Problem(hard=Columns.joined([moved, still]), keep=features(9, 2), lamb=0.5))
    assert float(residual(change, still).max()) < 1e-12
    assert float(residual(change, moved).max()) < 1e-9
    assert float(residual(edit(Problem(hard=moved, lamb=0.5)), still).max()) > 1e-3


def test_soft_invariants_are_columns_to_keep() -> None:
    columns, kept = moves(3), features(8, 4)
    soft = Columns.joined([columns, Columns.still(kept, weights=torch.full((8,), 0.3, dtype=torch.float64))])
    kept_soft = edit(Problem(soft=soft, lamb=0.2))
    assert distance(kept_soft, edit(Problem(soft=columns, keep=kept, keep_weight=0.3, lamb=0.2))) < 1e-12


def test_invariants_alone_ask_for_nothing() -> None:
    solution = solve(Problem(hard=Columns.still(features(3)), lamb=1.0))
    assert torch.equal(solution.delta.dense(), torch.zeros(D, D, dtype=torch.float64))
    assert solution.report.hard_residual == (0.0, 0.0, 0.0)


# Repetitions and conflicts


def repeated(columns: Columns, index: int, scale: float = 1.0, noise: float = 0.0) -> Columns:
    """The columns and one of them again."""
    again = columns.inputs[:, [index]] + noise * random(D, 1, seed=3)
    anchor = columns.inputs[:, [index]] + columns.change[:, [index]]
    extra = Columns(scale * again, scale * (anchor - again), labels=("again",))
    return Columns.joined([columns, extra])


@pytest.mark.parametrize("scale", [1.0, 2.0, -0.5])
def test_a_repeated_hard_column_changes_nothing(scale: float) -> None:
    columns, keep = moves(4), features(9, 2)
    once = edit(Problem(hard=columns, keep=keep, lamb=0.5))
    solution = solve(Problem(hard=repeated(columns, 1, scale), keep=keep, lamb=0.5))
    assert distance(solution.delta.dense(), once) < 1e-12
    assert solution.report.conflicts == ()
    assert max(solution.report.hard_residual) < 1e-12


@pytest.mark.parametrize(("noise", "merge"), [(1e-3, 1e-6), (1e-6, 1e-12), (1e-9, 1e-12), (1e-12, 1e-12)])
def test_a_column_repeated_with_noise_is_one_demand(noise: float, merge: float) -> None:
    columns = moves(4)
    once = edit(Problem(hard=columns, lamb=0.5))
    solution = solve(Problem(hard=repeated(columns, 1, noise=noise / 3), lamb=0.5, merge=merge))
    assert solution.report.rank == 4
    assert distance(solution.delta.dense(), once) < 2 * noise
    assert max(solution.report.hard_residual) < 2 * noise


def test_near_columns_that_are_not_merged_are_met_exactly() -> None:
    near = repeated(moves(4), 1, noise=3e-4)
    assert max(solve(Problem(hard=near, lamb=0.5, merge=1e-6)).report.hard_residual) > 1e-5
    report = solve(Problem(hard=near, lamb=0.5)).report
    assert report.rank == 5
    assert max(report.hard_residual) < 1e-10


def test_a_chain_of_near_columns_is_not_merged_into_one() -> None:
    chain = features(1) + 1e-3 * random(D, 12, seed=3).cumsum(1)
    problem = Problem(hard=Columns.pairs(chain, features(1, 1).expand(-1, 12)), lamb=0.5, merge=1e-6)
    assert max(solve(problem).report.hard_residual) < 1e-9


def test_near_columns_with_one_anchor_are_no_conflict() -> None:
    near = repeated(moves(4), 1, noise=5e-3)
    report = solve(Problem(hard=near, lamb=0.5)).report
    assert report.rank == 5
    assert report.change_norm < 2 * solve(Problem(hard=moves(4), lamb=0.5)).report.change_norm
    assert max(report.hard_residual) < 1e-11


def test_near_columns_with_one_anchor_are_no_conflict_in_a_layer_of_large_weights() -> None:
    near = repeated(moves(4), 1, noise=5e-3)
    layer = replace(near, change=1000 * random(9, D, seed=6) @ near.change)
    assert solve(Problem(hard=layer, lamb=0.5)).report.conflicts == ()


@pytest.mark.parametrize(("rounding", "conflict"), [(3e-6, False), (1e-3, True)])
def test_changes_that_differ_by_rounding_are_no_conflict(rounding: float, conflict: bool) -> None:
    columns = moves(4)
    again = Columns(columns.inputs[:, :1], columns.change[:, :1] * (1 + rounding))
    problem = Problem(hard=Columns.joined([columns, again]), lamb=0.5)
    assert bool(solve(problem, "least-squares").report.conflicts) is conflict


def test_what_rounding_leaves_of_no_change_is_no_conflict() -> None:
    still = features(1, 5).expand(-1, 2)
    noise = Columns(still, 1e-6 * random(D, 2, seed=6))
    report = solve(Problem(hard=Columns.joined([moves(3), noise]), lamb=0.5)).report
    assert report.conflicts == ()
    assert max(report.hard_residual) < 1e-5


def contradiction(noise: float = 0.0, scale: float = 1.0) -> Columns:
    """Four columns and "car" once more, with another anchor."""
    cars = replace(moves(4), labels=("dog", "car", "cat", "tree"))
    again = scale * (cars.inputs[:, [1]] + noise * random(D, 1, seed=3))
    return Columns.joined([cars, Columns.pairs(again, features(1, 77), labels=("auto",))])


@pytest.mark.parametrize("noise", [0.0, 1e-8, 5e-3])
@pytest.mark.parametrize("scale", [1.0, -3.0])
def test_one_feature_with_two_anchors_is_refused_by_name(noise: float, scale: float) -> None:
    with pytest.raises(ConflictError, match="'car' and 'auto'") as caught:
        solve(Problem(hard=contradiction(noise, scale), lamb=0.5))
    assert caught.value.pairs == (("car", "auto"),)


def test_every_conflicting_pair_is_named() -> None:
    twice = Columns.joined([contradiction(), Columns.pairs(features(4)[:, [3]], features(1, 78), labels=["bush"])])
    with pytest.raises(ConflictError) as caught:
        solve(Problem(hard=twice, lamb=0.5))
    assert caught.value.pairs == (("car", "auto"), ("tree", "bush"))


def test_a_pair_of_labels_is_named_once() -> None:
    columns = replace(moves(2), labels=("car", "dog"))
    other = Columns.pairs(columns.inputs, features(2, 77), labels=("auto", "hound"))
    with pytest.raises(ConflictError) as caught:
        solve(Problem(hard=Columns.joined([columns, columns, other]), lamb=0.5))
    assert caught.value.pairs == (("car", "auto"), ("dog", "hound"))


def test_a_conflict_can_be_settled_by_least_squares() -> None:
    columns, keep = contradiction(), features(9, 2)
    solution = solve(Problem(hard=columns, keep=keep, lamb=0.5), "least-squares")
    middle = columns.change[:, [1, 4]].mean(1, keepdim=True)
    settled = columns.change[:, :4].clone()
    settled[:, [1]] = middle
    expected = edit(Problem(hard=Columns(columns.inputs[:, :4], settled), keep=keep, lamb=0.5))
    assert distance(solution.delta.dense(), expected) < 1e-10
    assert solution.report.conflicts == (("car", "auto"),)
    assert (solution.report.rank, solution.report.dropped) == (4, 1)
    apart = (columns.change[:, 1] - columns.change[:, 4]).norm() / 2**0.5
    assert solution.report.kappa == pytest.approx(float(apart / columns.change.norm()), rel=1e-10)


@pytest.mark.parametrize("scale", [1.0, -2.0])
def test_a_settled_conflict_counts_every_column_as_it_is(scale: float) -> None:
    columns = repeated(contradiction(), 1, scale)
    change = edit(Problem(hard=columns, lamb=0.5), conflicts="least-squares")
    assert distance(change, columns.change @ torch.linalg.pinv(columns.inputs, rtol=1e-12)) < 1e-10


def test_more_demands_than_dimensions_are_refused() -> None:
    with pytest.raises(ConflictError, match=f"{D + 6} hard columns span only {D} dimensions") as caught:
        solve(Problem(hard=moves(D + 6), lamb=0.5))
    assert caught.value.pairs == ()
    assert caught.value.kappa is not None
    assert caught.value.kappa > 0.1


def test_more_demands_than_dimensions_can_be_settled_by_least_squares() -> None:
    columns = moves(D + 6)
    solution = solve(Problem(hard=columns, lamb=0.5), "least-squares")
    expected = columns.change @ torch.linalg.pinv(columns.inputs)
    assert distance(solution.delta.dense(), expected) < 1e-10
    assert (solution.report.rank, solution.report.dropped) == (D, 6)
    again = solve(Problem(hard=repeated(columns, 2), lamb=0.5), "least-squares").report
    assert again.dropped == 6, "repetitions are merged, not dropped"


def test_more_demands_than_dimensions_are_met_where_they_agree() -> None:
    inputs, wanted = features(D + 6), random(D, D, seed=4)
    solution = solve(Problem(hard=Columns(inputs, wanted @ inputs), lamb=0.5))
    assert distance(solution.delta.dense(), wanted) < 1e-10
    assert solution.report.kappa < 1e-12


def test_an_unknown_policy_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BadProblem, match="'ignore'; it can be: raise, least-squares"):
        solve(full(), "ignore")  # type: ignore[arg-type]


# Damping, tolerance, singularity


def test_damping_is_a_ridge_on_the_hard_columns() -> None:
    columns, keep = moves(5), features(9, 2)
    problem = Problem(hard=columns, keep=keep, lamb=0.5, damping=0.1)
    root = torch.linalg.cholesky(metric(problem))
    peak = torch.linalg.matrix_norm(torch.linalg.inv(root) @ columns.inputs, 2)
    ridge = (0.1 * peak) ** 2
    expected = (
        columns.change
        @ columns.inputs.T
        @ torch.linalg.inv(columns.inputs @ columns.inputs.T + ridge * metric(problem))
    )
    assert distance(edit(problem), expected) < 1e-10


def test_invariants_stay_exact_under_damping() -> None:
    moving, still = moves(5), Columns.still(30 * features(3, 7))
    problem = Problem(hard=Columns.joined([moving, still]), keep=features(9, 2), lamb=0.5, damping=0.1)
    assert (edit(problem) @ still.inputs).norm() < 1e-12 * still.inputs.norm()
    assert min(solve(problem).report.hard_residual[:5]) > 1e-3


@pytest.mark.parametrize("soft", [None, moves(4, 30)])
def test_damping_around_invariants_is_a_ridge_under_constraints(soft: Columns | None) -> None:
    moving, still = moves(5), Columns.still(features(3, 7))
    problem = Problem(
        soft=soft, hard=Columns.joined([still, moving]), keep=features(9, 2), lamb=0.5, damping=0.1, keep_weight=0.3
    )
    inverse = torch.linalg.inv(torch.linalg.cholesky(metric(problem)))
    orthonormal, _ = torch.linalg.qr(inverse @ still.inputs)
    white = inverse @ moving.inputs
    peak = torch.linalg.matrix_norm(white - orthonormal @ (orthonormal.T @ white), 2)
    wishes = replace(moving, weights=float((0.1 * peak) ** -2) * torch.ones(5, dtype=torch.float64))
    joined = wishes if soft is None else Columns.joined([soft, wishes])
    expected = by_kkt(replace(problem, soft=joined, hard=still, damping=0.0))
    assert distance(edit(problem), expected) < 1e-10


def test_a_damped_demand_on_an_invariant_is_a_conflict() -> None:
    still = Columns.still(features(1), labels=["start"])
    hard = Columns.joined([still, Columns(features(1), random(D, 1, seed=3), labels=["cat"])])
    with pytest.raises(ConflictError, match="'start' and 'cat'"):
        solve(Problem(hard=hard, lamb=0.5, damping=0.1))
    solution = solve(Problem(hard=hard, lamb=0.5, damping=0.1), "least-squares")
    assert solution.report.change_norm < 1e-9
    assert solution.report.kappa == 1


def test_damping_tames_a_contradiction() -> None:
    hard = contradiction(noise=5e-3)
    wild = solve(Problem(hard=hard, lamb=0.5), "least-squares").report
    tame = solve(Problem(hard=hard, lamb=0.5, damping=3e-2), "least-squares").report
    assert wild.change_norm > 50
    assert tame.change_norm < 10
    assert tame.conflicts == wild.conflicts == (("car", "auto"),)


def test_directions_below_the_tolerance_are_left_out() -> None:
    near = repeated(moves(4), 1, noise=1e-3)
    report = solve(Problem(hard=near, lamb=0.5, rtol=1e-2), "least-squares").report
    assert (report.rank, report.dropped) == (4, 1)


@pytest.mark.parametrize("lamb", [0.0, 1e-14])
@pytest.mark.parametrize("keep", [3, D - 1])
def test_where_the_rest_does_not_span_lamb_is_needed(keep: int, lamb: float) -> None:
    with pytest.raises(SingularError, match=f"lamb = {lamb:g} is too small"):
        solve(Problem(hard=moves(3), keep=features(keep, 5), lamb=lamb))


def test_with_hard_columns_alone_lamb_is_needed() -> None:
    with pytest.raises(SingularError, match="lamb = 0 is too small"):
        solve(Problem(hard=moves(3), lamb=0.0))


def test_lamb_may_be_zero_where_the_rest_spans() -> None:
    problem = Problem(hard=moves(3), keep=features(2 * D, 4), lamb=0.0)
    assert distance(edit(problem), by_kkt(problem)) < 1e-10


def test_a_gram_with_negative_eigenvalues_is_refused() -> None:
    with pytest.raises(SingularError, match=r"lamb = 0\.1"):
        solve(Problem(hard=moves(2), gram=-torch.eye(D), lamb=0.1))


def test_a_few_kept_columns_count_like_the_gram_they_make() -> None:
    keep, hard = features(D // 4, 5), moves(3)
    thin = solve(Problem(hard=hard, keep=keep, keep_weight=0.7, lamb=1e-3))
    whole = solve(Problem(hard=hard, gram=0.7 * keep @ keep.T, lamb=1e-3))
    assert distance(thin.delta.dense(), whole.delta.dense()) < 1e-10
    assert thin.report.leverage == pytest.approx(whole.report.leverage, rel=1e-9)
    assert whole.report.condition <= thin.report.condition * (1 + 1e-9)
    gram = metric(Problem(hard=hard, keep=keep, keep_weight=0.7, lamb=1e-3))
    assert thin.report.condition == pytest.approx(float(torch.linalg.cond(gram)), rel=1e-9)


# Prices


@pytest.mark.parametrize("problem", [full(), replace(full(), soft=None), Problem(hard=moves(4), lamb=2.0)])
def test_a_price_is_what_meeting_a_column_adds_to_the_cost(problem: Problem) -> None:
    hard, scale = hard_of(problem), float(metric(problem).trace())
    free = replace(problem, hard=Columns.still(torch.zeros(D, 1, dtype=torch.float64)))
    costs = [cost(problem, edit(free))]
    for count in range(1, len(hard) + 1):
        first = hard.part(torch.arange(len(hard)) < count)
        costs.append(cost(problem, edit(replace(problem, hard=first))))
    found = prices(problem)
    assert found.met.all()
    expected = [(after - before) / scale for before, after in itertools.pairwise(costs)]
    assert found.price.tolist() == pytest.approx(expected, rel=1e-9)


def test_what_a_budget_cannot_pay_for_is_left_out_and_what_comes_later_is_not() -> None:
    dear, cheap = moves(3, seed=3), moves(1, seed=7)
    hard = Columns.joined([replace(dear, change=10 * dear.change), replace(cheap, change=1e-3 * cheap.change)])
    problem = Problem(hard=hard, keep=features(9, 2), lamb=0.5)
    all_of_them = prices(problem).price
    found = prices(problem, float(all_of_them[0]) * 1.001)
    assert found.met.tolist() == [True, False, False, True]
    assert found.price[:2].tolist() == all_of_them[:2].tolist()
    assert prices(problem, float(all_of_them.sum()) * 1.001).met.all()
    assert not prices(problem, 0.0).met.any()


def test_a_column_in_conflict_has_no_price() -> None:
    found = prices(Problem(hard=contradiction(noise=5e-3), lamb=0.5))
    labels = contradiction(noise=5e-3).labels
    assert [labels[index] for index in (~found.met).nonzero().flatten()] == ["auto"]
    assert found.price[~found.met].tolist() == [float("inf")]


def test_what_is_met_can_be_solved_without_conflict() -> None:
    hard = Columns.joined([contradiction(noise=5e-3), moves(D + 4, 30)])
    met = prices(Problem(hard=hard, lamb=0.5)).met
    report = solve(Problem(hard=hard.part(met), lamb=0.5)).report
    assert int(met.sum()) == report.rank == D
    assert max(report.hard_residual) < 1e-6


def test_repetitions_are_paid_for_once_and_what_follows_from_others_is_free() -> None:
    columns = moves(3)
    sums = Columns(columns.inputs.sum(1, keepdim=True), columns.change.sum(1, keepdim=True))
    problem = Problem(hard=Columns.joined([columns, repeated(columns, 1), sums]), keep=features(9, 2), lamb=0.5)
    plain = prices(replace(problem, hard=columns)).price
    found = prices(problem)
    assert found.met.all()
    assert found.price[:3].tolist() == pytest.approx(plain.tolist())
    assert found.price[-1] == 0
    assert prices(problem, float(plain.sum()) * 1.001).met.all()


@pytest.mark.parametrize("budget", [-1.0, float("nan")])
def test_a_budget_is_a_number_from_zero_on(budget: float) -> None:
    with pytest.raises(BadProblem, match="budget"):
        prices(full(), budget)
    with pytest.raises(BadProblem, match="without hard columns"):
        prices(Problem(soft=moves(2), lamb=0.5))


# Duals


@pytest.mark.parametrize("chosen", [[0], [3, 1], [0, 1, 2, 3, 4]])
def test_some_columns_met_through_their_duals_are_met_as_if_solved_for_alone(chosen: list[int]) -> None:
    problem = Problem(hard=moves(5), keep=features(9, 2), lamb=0.5)
    columns = Columns(hard_of(problem).inputs[:, chosen], hard_of(problem).change[:, chosen])
    alone = edit(replace(problem, hard=columns))
    assert distance(through_duals(columns, duals(problem)[:, chosen]).dense(), alone) < 1e-10


def test_rounded_duals_meet_the_columns_as_exactly() -> None:
    problem = Problem(hard=moves(5), keep=features(9, 2), lamb=0.5)
    delta = through_duals(hard_of(problem), duals(problem).float())
    assert float(residual(delta, hard_of(problem)).max()) < 1e-12
    assert distance(delta.dense(), edit(problem)) < 1e-4


def test_a_repetition_among_duals_changes_nothing() -> None:
    columns = moves(4)
    again = repeated(columns, 1, noise=1e-8)
    found = through_duals(again, duals(Problem(hard=again, lamb=0.5))).dense()
    assert distance(found, edit(Problem(hard=columns, lamb=0.5))) < 1e-6


def test_duals_that_do_not_belong_are_refused() -> None:
    with pytest.raises(BadProblem, match=r"shape \(24, 3\), their columns \(24, 4\)"):
        through_duals(moves(4), features(3))
    with pytest.raises(BadProblem, match="without hard columns"):
        duals(Problem(soft=moves(2), lamb=0.5))


# Form and report


def test_few_columns_give_thin_factors_and_many_a_whole_matrix() -> None:
    thin = solve(Problem(soft=moves(3), hard=moves(4, 5), lamb=0.5)).delta
    assert isinstance(thin, LowRank)
    assert thin.rank == 7
    assert isinstance(solve(Problem(soft=moves(D // 2), lamb=0.5)).delta, Dense)
    assert isinstance(solve(Problem(soft=moves(D // 4), hard=moves(D // 4, 5), lamb=0.5)).delta, Dense)


def test_invariants_cost_no_rank() -> None:
    hard = Columns.joined([moves(2), Columns.still(features(8, 5))])
    assert solve(Problem(hard=hard, lamb=0.5)).delta.rank == 2
    soft = Columns.joined([moves(2), Columns.still(features(D, 5))])
    delta = solve(Problem(soft=soft, lamb=0.5)).delta
    assert isinstance(delta, LowRank)
    assert delta.rank == 2


def test_soft_columns_of_weight_zero_cost_no_rank() -> None:
    weights = torch.zeros(D)
    weights[:2] = 1
    delta = solve(Problem(soft=moves(D, weights=weights), lamb=0.5)).delta
    assert isinstance(delta, LowRank)
    assert delta.rank == 2


def test_factors_are_balanced_for_half_precision() -> None:
    heavy = replace(moves(3), weights=torch.full((3,), 1e8))
    delta = solve(Problem(soft=heavy, lamb=1.0)).delta
    assert isinstance(delta, LowRank)
    assert torch.allclose(delta.up.norm(dim=0), delta.down.norm(dim=1))
    half = LowRank(delta.up.half(), delta.down.half())
    assert float(residual(half, heavy).max()) < 1e-2


def test_residuals_are_shares_of_what_was_asked() -> None:
    columns = Columns(2 * torch.eye(3), torch.tensor([[4.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
    change = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.25, 0.0]])
    expected = torch.tensor([0.5, 0.25, 0.0], dtype=torch.float64)
    assert torch.equal(residual(change, columns), expected)
    assert torch.equal(residual(Dense(change), columns), expected)
    assert torch.equal(residual(LowRank(torch.eye(2), change), columns), expected)


def test_the_report_is_json_and_says_what_is_so() -> None:
    problem = full()
    solution = solve(problem)
    report = solution.report
    assert json.loads(json.dumps(asdict(report)))["rank"] == 4
    assert max(report.hard_residual) < 1e-12
    assert report.soft_residual == tuple(residual(solution.delta, soft_of(problem)).tolist())
    assert min(report.soft_residual) > 1e-3
    assert report.change_norm == pytest.approx(float(solution.delta.dense().norm()), rel=1e-12)
    exact = float(torch.linalg.cond(metric(problem)))
    assert 0.5 * exact < report.condition < 1.0001 * exact


def test_all_is_float64_whatever_comes_in() -> None:
    targets, anchors, keep = features(4).float(), features(4, 1).float(), features(9, 2).float()
    low = solve(Problem(hard=Columns.pairs(targets, anchors), keep=keep, lamb=0.5))
    pairs = Columns.pairs(targets.double(), anchors.double())
    high = solve(Problem(hard=pairs, keep=keep.double(), lamb=0.5))
    assert low.delta.dense().dtype == torch.float64
    assert torch.equal(low.delta.dense(), high.delta.dense())


def test_solving_twice_gives_the_same_bits() -> None:
    assert torch.equal(edit(full()), edit(full()))


def test_inputs_are_left_alone() -> None:
    gram, keep, targets = torch.eye(D, dtype=torch.float64), features(3), features(4, 1)
    before = [gram.clone(), keep.clone(), targets.clone()]
    solve(Problem(hard=Columns.pairs(targets, features(4, 2)), keep=keep, gram=gram, lamb=0.5))
    assert all(map(torch.equal, before, [gram, keep, targets]))


# Columns


def test_pairs_ask_for_the_way_from_target_to_anchor() -> None:
    columns = Columns.pairs(torch.tensor([[1.0], [2.0]]), torch.tensor([[5.0], [1.0]]), labels=["car"])
    assert columns.change.tolist() == [[4.0], [-1.0]]
    assert columns.labels == ("car",)
    assert columns.weights is None


def test_half_precision_pairs_are_subtracted_exactly() -> None:
    target, anchor = torch.tensor([[2048.0]]).half(), torch.tensor([[0.5]]).half()
    assert Columns.pairs(target, anchor).change.item() == -2047.5


def test_columns_are_labelled_by_their_number() -> None:
    assert moves(3).labels == ("0", "1", "2")


def test_joined_columns_keep_their_order_and_weights() -> None:
    weighted = moves(2, weights=torch.tensor([0.5, 2.0]))
    joined = Columns.joined([weighted, Columns.still(features(1, 3), labels=["dog"])])
    assert joined.labels == ("0", "1", "dog")
    assert joined.weights is not None
    assert joined.weights.tolist() == [0.5, 2.0, 1.0]
    assert torch.equal(joined.inputs[:, :2], weighted.inputs)
    assert Columns.joined([moves(1), moves(2)]).weights is None


def test_no_columns_are_the_same_as_none() -> None:
    nothing = Columns.still(torch.empty(D, 0))
    problem = Problem(hard=moves(2), soft=nothing, keep=torch.empty(D, 0), lamb=0.5)
    assert problem.soft is None
    assert torch.equal(edit(problem), edit(Problem(hard=moves(2), lamb=0.5)))


def unfinished(value: float) -> Tensor:
    matrix = torch.ones(3, 2)
    matrix[1, 1] = value
    return matrix


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.ones(3, 2), torch.ones(3, 4)), "change has 4 columns, inputs have 2"),
        ((torch.ones(3), torch.ones(3, 1)), r"inputs must be a floating-point matrix, not torch.float32 \(3,\)"),
        ((torch.ones(3, 2, dtype=torch.int64), torch.ones(3, 2)), "inputs must be .* not torch.int64"),
        ((unfinished(float("nan")), torch.ones(3, 2), None, ("dog", "car")), "inputs: column 'car' is not finite"),
        ((torch.ones(3, 2), unfinished(float("inf")), None, ("dog", "car")), "change: column 'car' is not finite"),
        ((torch.ones(3, 2), torch.ones(3, 2), torch.ones(3)), r"weights have shape \(3,\), not \(2,\)"),
        ((torch.ones(3, 2), torch.ones(3, 2), torch.tensor([1.0, -1.0])), "column '1' has weight -1.0"),
        ((torch.ones(3, 2), torch.ones(3, 2), torch.tensor([torch.nan, 1.0])), "column '0' has weight nan"),
        ((torch.ones(3, 2), torch.ones(3, 2), None, ("car",)), "1 labels for 2 columns"),
    ],
)
def test_columns_name_what_does_not_fit(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(BadProblem, match=message):
        Columns(*arguments)


def test_pairs_of_different_shape_are_refused() -> None:
    with pytest.raises(BadProblem, match=r"targets \(3, 2\) and anchors \(3, 1\) differ"):
        Columns.pairs(torch.ones(3, 2), torch.ones(3, 1))


def test_pairs_name_what_is_no_matrix() -> None:
    with pytest.raises(BadProblem, match="Columns targets must be a floating-point matrix"):
        Columns.pairs(torch.ones(3), torch.ones(3, 1))


def test_columns_of_different_shape_cannot_be_joined() -> None:
    with pytest.raises(BadProblem, match=r"\[\(2, 3\), \(3, 3\)\]"):
        Columns.joined([Columns.still(torch.ones(3, 1)), Columns.still(torch.ones(3, 1), outputs=2)])
    with pytest.raises(BadProblem, match="no columns"):
        Columns.joined([])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hard": None}, "no columns"),
        ({"lamb": -1.0}, "lamb is -1.0"),
        ({"lamb": float("nan")}, "lamb is nan"),
        ({"damping": -0.1}, "damping is -0.1"),
        ({"rtol": float("inf")}, "rtol is inf"),
        ({"keep_weight": -2.0}, "keep_weight is -2.0"),
        ({"merge": -1e-6}, "merge is -1e-06"),
        ({"keep": torch.ones(D + 1, 2)}, f"keep has {D + 1} rows, the columns have {D}"),
        ({"keep": torch.full((D, 2), torch.nan)}, "keep is not finite"),
        ({"gram": torch.ones(D, 2)}, "gram has shape"),
        ({"gram": torch.full((D, D), torch.inf)}, "gram is not finite"),
        ({"gram": torch.ones(D, D).tril()}, "gram is not symmetric"),
        ({"soft": moves(2, d=D + 1)}, "soft and hard columns differ in shape"),
        ({"hard": moves(2, weights=torch.ones(2))}, "hard columns take no weights"),
        ({"hard": Columns(torch.zeros(D, 1), torch.ones(D, 1), labels=("car",))}, "hard column 'car' is zero"),
    ],
)
def test_problems_name_what_does_not_fit(fields: dict[str, object], message: str) -> None:
    with pytest.raises(BadProblem, match=message):
        Problem(**{"hard": moves(2), "lamb": 0.5} | fields)  # type: ignore[arg-type]


# Properties


def chosen(columns: Columns, order: list[int]) -> Columns:
    weights = None if columns.weights is None else columns.weights[order]
    labels = tuple(columns.labels[index] for index in order)
    return Columns(columns.inputs[:, order], columns.change[:, order], weights, labels)


@quick
@given(seed=seeds, soft=st.permutations(range(7)), hard=st.permutations(range(4)))
def test_the_order_of_columns_does_not_matter(seed: int, soft: list[int], hard: list[int]) -> None:
    problem = full(seed)
    shuffled = replace(problem, soft=chosen(soft_of(problem), soft), hard=chosen(hard_of(problem), hard))
    assert distance(edit(shuffled), edit(problem)) < 1e-10


@quick
@given(seed=seeds, order=st.permutations(range(6)))
def test_the_order_of_repetitions_and_conflicts_does_not_matter(seed: int, order: list[int]) -> None:
    columns = repeated(contradiction(), seed % 4)
    problem = Problem(hard=columns, keep=features(5, seed), lamb=0.5)
    shuffled = replace(problem, hard=chosen(columns, order))
    one, other = edit(problem, conflicts="least-squares"), edit(shuffled, conflicts="least-squares")
    assert distance(one, other) < 1e-10


@quick
@given(seed=seeds)
def test_every_problem_meets_its_hard_columns_at_least_cost(seed: int) -> None:
    problem = full(seed)
    solution = solve(problem)
    assert max(solution.report.hard_residual) < 1e-10
    assert distance(solution.delta.dense(), by_kkt(problem)) < 1e-9


@quick
@given(seed=seeds, scales=st.lists(st.sampled_from([-100.0, -1.0, 1e-3, 2.0]), min_size=4, max_size=4))
def test_the_length_of_a_hard_column_does_not_matter(seed: int, scales: list[float]) -> None:
    problem, factor = full(seed), torch.tensor(scales, dtype=torch.float64)
    longer = Columns(hard_of(problem).inputs * factor, hard_of(problem).change * factor)
    assert distance(edit(replace(problem, hard=longer)), edit(problem)) < 1e-9


@quick
@given(seed=seeds)
def test_asking_for_twice_the_change_gives_twice_the_change(seed: int) -> None:
    problem = full(seed)
    soft = replace(soft_of(problem), change=2 * soft_of(problem).change)
    hard = replace(hard_of(problem), change=2 * hard_of(problem).change)
    assert distance(edit(replace(problem, soft=soft, hard=hard)), 2 * edit(problem)) < 1e-12
