"""The solver, against solutions computed elsewhere (reference/README.md); 1e-9 relative is equal."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from efface.solver import Columns, Problem, solve

REFERENCE = Path(__file__).parent / "reference"
EQUAL = 1e-9

Case = tuple[dict[str, Tensor], dict[str, Any]]


def case(name: str) -> Case:
    with safe_open(REFERENCE / f"{name}.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key).double() for key in file.keys()}  # noqa: SIM118
        return tensors, json.loads(file.metadata()["params"])


def distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.fixture(scope="module")
def static() -> Case:
    return case("erasepro_static")


@pytest.fixture(scope="module")
def realera() -> Case:
    return case("realera_closed")


@pytest.fixture(scope="module")
def fusion() -> Case:
    return case("fusion_adapters")


def pairs(tensors: dict[str, Tensor], group: str) -> Columns:
    return Columns.pairs(tensors[f"{group}.C_t"], tensors[f"{group}.C_a"])


@pytest.mark.parametrize("group", ["n1", "n5", "n20", "dup", "inv"])
def test_hard_columns_beside_kept_ones(static: Case, group: str) -> None:
    tensors, params = static
    solution = solve(Problem(hard=pairs(tensors, group), keep=tensors["C_p"], lamb=params["lam"]))
    weight = tensors["W"]
    assert distance(weight + weight @ solution.delta.dense(), tensors[f"{group}.W_pres"]) < EQUAL
    assert max(solution.report.hard_residual) < EQUAL


@pytest.mark.parametrize("group", ["n1", "n5", "n20", "dup"])
def test_hard_columns_alone(static: Case, group: str) -> None:
    tensors, _ = static
    solution = solve(Problem(hard=pairs(tensors, group), lamb=1.0))
    weight = tensors["W"]
    assert distance(weight + weight @ solution.delta.dense(), tensors[f"{group}.W_nopres"]) < EQUAL


@pytest.mark.parametrize("group", ["n1", "n20"])
def test_the_map_itself(static: Case, group: str) -> None:
    tensors, params = static
    solution = solve(Problem(hard=pairs(tensors, group), keep=tensors["C_p"], lamb=params["lam"]))
    assert distance(solution.delta.dense(), tensors[f"{group}.E_pres"]) < EQUAL


@pytest.mark.parametrize("group", ["n1", "n5", "n20"])
def test_the_cost(static: Case, group: str) -> None:
    tensors, params = static
    solution = solve(Problem(hard=pairs(tensors, group), keep=tensors["C_p"], lamb=params["lam"]))
    change = tensors["W"] @ solution.delta.dense()
    cost = (change @ tensors["C_p"]).square().sum() + params["lam"] * change.square().sum()
    assert float(cost) == pytest.approx(params[f"{group}.cost_pres"], rel=EQUAL)


def test_a_conflict_in_the_least_squares_sense(static: Case) -> None:
    tensors, params = static
    problem = Problem(hard=pairs(tensors, "conflict"), keep=tensors["C_p"], lamb=params["lam"])
    solution = solve(problem, "least-squares")
    weight = tensors["W"]
    assert distance(weight + weight @ solution.delta.dense(), tensors["conflict.W_pres"]) < EQUAL
    assert solution.report.kappa == pytest.approx(params["conflict.kappa"], rel=EQUAL)
    assert solution.report.conflicts == (("0", "5"),)


def test_damped_columns_beside_kept_ones(static: Case) -> None:
    tensors, params = static
    columns = pairs(tensors, "damped")
    problem = Problem(hard=columns, keep=tensors["C_p"], lamb=params["lam"], damping=params["delta"])
    weight = tensors["W"]
    assert distance(weight + weight @ solve(problem).delta.dense(), tensors["damped.W_pres"]) < EQUAL


def test_damped_columns_alone(static: Case) -> None:
    tensors, params = static
    problem = Problem(hard=pairs(tensors, "damped"), lamb=5.0, damping=params["delta"])
    weight = tensors["W"]
    assert distance(weight + weight @ solve(problem).delta.dense(), tensors["damped.W_nopres"]) < EQUAL


def realera_problem(case: Case, hard: int) -> Problem:
    tensors, params = case
    targets, anchors = tensors["C"], tensors["A"]
    prior = tensors["C_prior"]
    return Problem(
        hard=Columns.pairs(targets[:, :hard], anchors[:, :hard]),
        soft=Columns.pairs(targets[:, hard:], anchors[:, hard:], tensors["w"][hard:]),
        keep=tensors["B"],
        keep_weight=params["beta"],
        gram=prior @ prior.T / params["n_prior"],
        lamb=params["lam"],
    )


def test_weighted_neighbours_with_a_prior(realera: Case) -> None:
    tensors, params = realera
    change = solve(realera_problem(realera, hard=0)).delta.dense()
    assert distance(change, tensors["E"]) < EQUAL
    for layer in range(len(params["out_dims"])):
        weight = tensors[f"W{layer}"]
        assert distance(weight + weight @ change, tensors[f"W{layer}_soft"]) < EQUAL


def test_weighted_neighbours_around_a_hard_concept(realera: Case) -> None:
    tensors, params = realera
    change = solve(realera_problem(realera, hard=params["n_hard"])).delta.dense()
    assert distance(change, tensors["E_hard"]) < EQUAL
    for layer in range(len(params["out_dims"])):
        weight = tensors[f"W{layer}"]
        assert distance(weight + weight @ change, tensors[f"W{layer}_hard"]) < EQUAL


def test_several_adapters_fused_into_one_weight(fusion: Case) -> None:
    tensors, params = fusion
    names = [key.removeprefix("W0.") for key in tensors if key.startswith("W0.")]
    assert len(names) == 8
    for name in names:
        adapted = [
            Columns(rows, tensors[f"c{i}.up.{name}"] @ (tensors[f"c{i}.down.{name}"] @ rows))
            for i in range(params["n_concepts"])
            for rows in [tensors[f"c{i}.context"].flatten(0, 1).T]
        ]
        weight = tensors[f"W0.{name}"]
        scale = params["preserve_scale"]
        kept = [
            kept_columns(tensors["prior"], scale, len(weight)),
            kept_columns(tensors["domain"], scale * params["preserve_weight"], len(weight)),
        ]
        delta = solve(Problem(soft=Columns.joined([*adapted, *kept]), lamb=params["lamb"])).delta
        assert distance(weight + delta.dense(), tensors[f"W.{name}"]) < EQUAL


def kept_columns(rows: Tensor, weight: float, outputs: int) -> Columns:
    inputs = rows.flatten(0, 1).T
    return Columns.still(inputs, torch.full((inputs.shape[1],), weight), outputs=outputs)
