"""The chain, against an independent computation of it (reference/README.md)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

import efface
from efface.solver import Columns, Problem, solve
from efface_erasepro.walk import walking

FILE = Path(__file__).parent / "reference" / "erasepro_chain.safetensors"
EQUAL = 1e-9
RANK = 1e-9  # where the reference cuts singular values

Case = tuple[dict[str, Tensor], dict[str, Any]]


@pytest.fixture(scope="module")
def case() -> Case:
    with safe_open(FILE, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return tensors, json.loads(file.metadata()["params"])


def encoder(case: Case) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    tensors, params = case
    model = CLIPTextModel(CLIPTextConfig(**params["clip_config"])).double().eval()
    model.load_state_dict({key.removeprefix("clip."): tensors[key] for key in tensors if key.startswith("clip.")})
    return model


class Chain:
    """One pass over targets, kept prompts and anchors, in this order; only the targets are edited."""

    def __init__(self, case: Case, variant: str) -> None:
        self.tensors, self.params = case
        self.gram = variant == "gram"
        self.maps: dict[str, efface.LowRank | efface.Dense] = {}
        self.inputs: dict[str, Tensor] = {}
        model = encoder(case)
        ids = torch.cat([self.tensors[f"ids_{name}"] for name in ("target", "retain", "anchor")])
        self.targets, self.rows = len(self.tensors["ids_target"]), len(ids)
        modules = {
            f"layer{depth}.{name}": model.get_submodule(f"encoder.layers.{depth}.{path}")
            for depth in range(self.params["clip_config"]["num_hidden_layers"])
            for name, path in (("v_proj", "self_attn.v_proj"), ("fc2", "mlp.fc2"))
        }
        self.weights = {name: module.weight.detach().clone() for name, module in modules.items()}
        with torch.no_grad(), walking(modules, self.rows, self.targets, self.edit):
            self.hidden = model(ids).last_hidden_state
        self.after = {name: module.weight for name, module in modules.items()}

    def edit(self, name: str, x: Tensor) -> efface.LowRank | efface.Dense:
        self.inputs[name], self.maps[name] = self.solved(x)
        return self.maps[name]

    def solved(self, x: Tensor) -> tuple[Tensor, efface.LowRank | efface.Dense]:
        """The targets' features in x and the map that moves them."""
        prompt, position, becomes = self.tensors["columns"].T
        first = self.rows - len(self.tensors["ids_anchor"])
        targets, anchors = x[prompt, position].T, x[first + prompt, becomes].T
        kept = x[self.targets : first].flatten(0, 1).T
        gram = kept @ kept.T / kept.shape[1] if self.gram else None
        lamb = 1.0 if gram is None else self.params["rho"] * float(gram.trace()) / len(kept)
        problem = Problem(hard=Columns.pairs(targets, anchors), gram=gram, lamb=lamb, rtol=RANK)
        return targets, solve(problem, "least-squares").delta


def distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.fixture(scope="module", params=["plain", "gram"])
def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def chain(case: Case, variant: str) -> Chain:
    return Chain(case, variant)


def test_every_weight_of_the_chain_is_the_expected_one(case: Case, chain: Chain, variant: str) -> None:
    tensors, _ = case
    assert len(chain.maps) == 6
    for name, delta in chain.maps.items():
        weight = chain.weights[name] + chain.weights[name] @ delta.dense()
        assert distance(weight, tensors[f"{variant}.{name}.W"]) < EQUAL


def test_every_module_sees_what_the_modules_before_it_have_made(case: Case, chain: Chain, variant: str) -> None:
    tensors, _ = case
    if variant == "plain":
        for name, inputs in chain.inputs.items():
            assert distance(inputs, tensors[f"plain.{name}.X"]) < EQUAL


def test_every_module_gives_what_the_base_gives_for_the_anchor(case: Case, chain: Chain) -> None:
    tensors, params = case
    for name, delta in chain.maps.items():
        x = chain.inputs[name]
        given = chain.weights[name] @ (x + delta.dense() @ x)
        expected = max(EQUAL, 1.001 * params["plain"][name]["rel_residual"])
        assert distance(given, tensors[f"{name}.WoY"]) < expected


def test_the_text_comes_out_as_expected(case: Case, chain: Chain, variant: str) -> None:
    tensors, _ = case
    assert distance(chain.hidden[: chain.targets], tensors[f"{variant}.final_hidden"]) < EQUAL


def test_the_closing_step_gives_the_expected_keys_and_values(case: Case, chain: Chain, variant: str) -> None:
    tensors, _ = case
    _, delta = chain.solved(chain.hidden)
    for name in ("kv0", "kv1"):
        weight = tensors[f"{name}.W"].double()
        assert distance(weight + weight @ delta.dense(), tensors[f"{variant}.{name}.W_closed"]) < EQUAL


def test_no_weight_is_written(chain: Chain) -> None:
    for name, weight in chain.weights.items():
        assert torch.equal(chain.after[name], weight)
