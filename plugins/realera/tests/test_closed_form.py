"""Stage 1: one map for all layers, exact where asked, against dense solutions and in a small world of words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from efface.alignment import Aligned
from efface.solver import Columns, Problem, solve
from efface_realera.closed_form import Share, exact, held, left, problem, wished
from efface_realera.perturbation import isotropic
from efface_realera.window import Window

REFERENCE = Path(__file__).parent / "reference" / "realera_closed.safetensors"
EQUAL = 1e-9


def distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


def pairs(targets: Tensor, anchors: Tensor) -> Aligned:
    return Aligned(targets, anchors, torch.arange(targets.shape[1]))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def reference() -> tuple[dict[str, Tensor], dict[str, Any]]:
    with safe_open(REFERENCE, "pt") as file:
        tensors = {key: file.get_tensor(key).double() for key in file.keys()}  # noqa: SIM118
        return tensors, json.loads(file.metadata()["params"])


def with_ridge(share: Share, hard: Columns | None, lamb: float) -> Problem:
    """The problem whose lamb is this one; the ridge of a share is relative to its energy."""
    return problem(share, hard, lamb / problem(share, None, 1.0).lamb)


@pytest.mark.parametrize("hard", [0, 3])
def test_it_is_the_regression_of_the_reference(reference: Any, hard: int) -> None:
    tensors, params = reference
    targets, anchors = tensors["C"], tensors["A"]
    demands = Columns.pairs(targets[:, :hard], anchors[:, :hard]) if hard else None
    soft = Share(soft=(Columns.pairs(targets[:, hard:], anchors[:, hard:], tensors["w"][hard:]),))
    share = soft + held(tensors["B"], params["beta"] * params["n_beyond"]) + held(tensors["C_prior"], 1.0)
    change = solve(with_ridge(share, demands, params["lam"])).delta.dense()
    kind = "hard" if hard else "soft"
    assert distance(change, tensors["E_hard" if hard else "E"]) < EQUAL
    for layer in range(len(params["out_dims"])):
        weight = tensors[f"W{layer}"]
        assert distance(weight + weight @ change, tensors[f"W{layer}_{kind}"]) < EQUAL


def test_one_map_solves_the_normal_equations_of_every_layer() -> None:
    c, a, near, b, k = (
        normal(32, 3),
        normal(32, 3, seed=1),
        normal(32, 10, seed=2),
        normal(32, 6, seed=3),
        normal(32, 40, seed=4),
    )
    goal = a[:, :1].expand(-1, 10)
    share = wished(pairs(c, a), 1.0) + wished(pairs(near, goal), 2.0) + held(b, 4.0) + held(k, 0.5)
    asked = problem(share, None, 0.01)
    change = solve(asked).delta.dense()
    gram = c @ c.T / 3 + 2 * near @ near.T / 10
    stay = 4 * b @ b.T / 6 + 0.5 * k @ k.T / 40 + asked.lamb * torch.eye(32).double()
    assert asked.lamb == pytest.approx(0.01 * float((gram + stay).trace() - 32 * asked.lamb) / 32)
    for seed in range(3):
        weight = normal(20, 32, seed=10 + seed)
        right = weight @ (a @ c.T / 3 + 2 * goal @ near.T / 10 + stay)
        assert distance(weight + weight @ change, torch.linalg.solve(gram + stay, right, left=False)) < 1e-8


def test_without_neighbours_it_is_uce() -> None:
    c, a, k = normal(24, 4), normal(24, 4, seed=1), normal(24, 7, seed=2)
    asked = problem(wished(pairs(c, a), 1.0) + held(k, 0.5), None, 0.02)
    weight = normal(10, 24, seed=3)
    erase, preserve = 1.0 / 4, 0.5 / 7
    right = asked.lamb * weight + erase * weight @ a @ c.T + preserve * weight @ k @ k.T
    gram = asked.lamb * torch.eye(24).double() + erase * c @ c.T + preserve * k @ k.T
    edited = weight + weight @ solve(asked).delta.dense()
    assert distance(edited, right @ torch.linalg.inv(gram)) < EQUAL


@pytest.mark.parametrize("weight", [0.0, 1.0, 1e4])
def test_a_hard_target_is_met_whatever_its_neighbours_weigh(weight: float) -> None:
    concept = pairs(normal(40, 1), normal(40, 1, seed=1))
    near = pairs(normal(40, 20, seed=2), normal(40, 20, seed=3))
    share = wished(concept, 1.0) + wished(near, weight) + held(normal(40, 30, seed=4), 1.0)
    hard = solve(problem(share, exact(concept, "cat", 0.1), 0.01)).delta
    assert left(type(hard)(*(each.float() for each in vars(hard).values())), concept)[0] < 1e-5
    soft = solve(problem(share, None, 0.01)).delta
    assert left(soft, concept)[0] > 1e-3


def test_of_many_tokens_only_the_leading_directions_are_hard() -> None:
    common = normal(40, 1) * 10
    targets, anchors = common + 0.01 * normal(40, 12, seed=1), normal(40, 1, seed=2) + 0.01 * normal(40, 12, seed=3)
    tail = Aligned(targets, anchors, torch.zeros(12, dtype=torch.long))
    one, all_of_them = exact(tail, "cat", 0.1), exact(tail, "cat", 0.0)
    assert (len(one), len(all_of_them)) == (1, 12)
    assert one.labels == ("cat, direction 0",)
    share = wished(tail, 1.0)
    small, huge = (solve(problem(share, hard, 0.01), "least-squares") for hard in (one, all_of_them))
    assert max(small.report.hard_residual) < 1e-9
    assert small.report.change_norm < 2 < huge.report.change_norm


def test_what_is_left_is_measured_for_each_prompt() -> None:
    targets, anchors = normal(8, 4), normal(8, 4, seed=1)
    tokens = Aligned(targets, anchors, torch.tensor([0, 0, 1, 1]))
    halfway = Columns.pairs(targets[:, :2], anchors[:, :2]).change / 2
    delta = solve(
        Problem(hard=Columns.joined([Columns(targets[:, :2], halfway), Columns.still(targets[:, 2:])]), lamb=1.0)
    ).delta
    assert left(delta, tokens) == pytest.approx([0.5, 1.0])


# A world of words in clusters: does mining reach synonyms that nobody listed, and what does that cost?

SIZE, CLUSTERS, WORDS = 96, 30, 12
LISTED, BANK, UNSEEN = slice(0, 1), slice(1, 7), slice(7, 12)


@pytest.fixture(scope="module")
def world() -> Tensor:
    """Words (clusters, words, d): members of a cluster have a cosine of about 0.6."""
    centres, own = normal(CLUSTERS, 1, SIZE), normal(CLUSTERS, WORDS, SIZE, seed=1)
    return 0.6**0.5 * centres + 0.4**0.5 * own


def figures(world: Tensor, near: Tensor | None, beyond: Tensor | None, weight: float = 0.1) -> tuple[float, float]:
    """The gap of unseen synonyms to the anchor that is left, and the drift of unrelated words that nothing holds."""
    concept, anchor, others = world[0], world[1, :1].T, world[2:]
    share = wished(pairs(concept[LISTED].T, anchor), 1.0) + held(others[:, :4].flatten(0, 1).T, 4.0)
    if near is not None:
        share += wished(pairs(near, anchor.expand(-1, near.shape[1])), weight)
    if beyond is not None:
        share += held(beyond, 1.0)
    hard = Columns.pairs(concept[LISTED].T, anchor)
    edited = torch.eye(SIZE).double() + solve(problem(share, hard, 0.1)).delta.dense()
    unseen, unrelated = concept[UNSEEN].T, others[:, 6:].flatten(0, 1).T
    gap = (edited @ unseen - anchor).norm(dim=0) / (unseen - anchor).norm(dim=0)
    drift = (edited @ unrelated - unrelated).norm(dim=0) / unrelated.norm(dim=0)
    return float(gap.mean()), float(drift.mean())


def test_real_neighbours_reach_unseen_synonyms_at_little_cost(world: Tensor) -> None:
    gap, drift = figures(world, None, None)
    mined_gap, mined_drift = figures(world, world[0, BANK].T, None)
    assert mined_gap <= 0.95 * gap
    assert mined_drift <= drift + 0.05


def test_real_beyond_points_lower_the_cost_further(world: Tensor) -> None:
    near, beyond = world[0, BANK].T, world[2:, 4:6].flatten(0, 1).T
    mined_gap, mined_drift = figures(world, near, beyond)
    assert mined_gap <= 0.95 * figures(world, None, None)[0]
    assert mined_drift < figures(world, near, None)[1]


def test_noisy_neighbours_reach_them_at_the_cost_of_what_is_unrelated(world: Tensor) -> None:
    near = isotropic(world[0, 0], 64, Window(0.9, 0.5, 1.6), torch.Generator().manual_seed(2)).T
    gap, drift = figures(world, None, None)
    assert figures(world, near, None)[0] < gap
    strong_gap, strong_drift = figures(world, near, None, weight=1.0)
    assert strong_gap < gap
    assert strong_drift > drift + 0.1
