"""UCE through the solver, against the published implementation (reference/README.md)."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from efface.solver import Columns, Problem, solve

REFERENCE = Path(__file__).parent / "reference"

Case = tuple[dict[str, Tensor], dict[str, Any]]


@pytest.fixture(scope="module", params=["uce_guides", "uce_preserve"])
def case(request: pytest.FixtureRequest) -> Case:
    with safe_open(REFERENCE / f"{request.param}.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key).double() for key in file.keys()}  # noqa: SIM118
        return tensors, json.loads(file.metadata()["params"])


@pytest.fixture(scope="module")
def edited(case: Case) -> dict[str, Tensor]:
    """Every weight, edited by the one map that serves them all."""
    tensors, params = case
    scale = torch.full((len(tensors["erase"]),), params["erase_scale"])
    problem = Problem(
        soft=Columns.pairs(tensors["erase"].T, tensors["guide"].T, scale),
        keep=tensors["preserve"].T,
        keep_weight=params["preserve_scale"],
        lamb=params["lamb"],
    )
    change = solve(problem).delta.dense()
    weights = {key.removeprefix("W0."): tensors[key] for key in tensors if key.startswith("W0.")}
    return {name: weight + weight @ change for name, weight in weights.items()}


def distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


def test_every_weight_equals_the_published_one(case: Case, edited: dict[str, Tensor]) -> None:
    tensors, _ = case
    assert len(edited) == 8
    for name, weight in edited.items():
        assert distance(weight, tensors[f"W.{name}"]) < 1e-9


def test_the_float32_result_of_the_script_is_as_near_as_its_rounding(case: Case, edited: dict[str, Tensor]) -> None:
    tensors, params = case
    for name, weight in edited.items():
        assert distance(tensors[f"W_fp32.{name}"], weight) < 2 * params["fp32_vs_fp64_max_rel"]
