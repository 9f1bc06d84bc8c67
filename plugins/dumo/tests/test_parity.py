"""The branch, its modulation and the gate against the published implementation (reference/README.md)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors import safe_open
from torch import Tensor

import efface
from efface_dumo.branch import Branch
from efface_dumo.gate import Gate, overlap, similarity
from efface_dumo.modulation import Modulation, joined
from efface_dumo.skeleton import config_of, fill
from efface_hooks import Wiring

REFERENCE = Path(__file__).parent / "reference"
RESULTS, SCORES = 1e-11, 1e-12


def read(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with safe_open(REFERENCE / f"{name}.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return tensors, json.loads(file.metadata()["params"])


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


class Holder:
    """Stands in for a pipeline: a U-Net and nothing else."""

    def __init__(self, unet: Any) -> None:
        self.unet = unet


class Published:
    """The published case, with our branches in the place of the published ones."""

    def __init__(self) -> None:
        self.tensors, self.params = read("dumo")
        self.unet = UNet2DConditionModel(**self.params["unet_config"]).double().eval()
        self.unet.load_state_dict({name: t.double() for name, t in part(self.tensors, "unet.").items()})
        self.layers = self.params["n_skip"] + 1
        self.branches = [self.branch(index) for index in range(2)]

    def branch(self, index: int) -> Branch:
        named = {}
        for name, tensor in part(self.tensors, f"epr{index}.").items():
            name = name.replace("dumo_down_blocks", "joints").replace("dumo_mid_block", f"joints.{self.layers - 1}")
            named[name if name.startswith("joints") else f"encoder.{name}"] = tensor.double()
        branch = Branch(config_of(self.unet))
        fill(branch, named)
        return branch.eval()

    def table(self, index: int) -> Modulation:
        modulation = Modulation("time_layer", self.params["n_bins"], range(self.layers), 1)
        modulation.load_state_dict({"table": self.tensors[f"Lambda{index}"]})
        return modulation.requires_grad_(False)

    def inputs(self, call: int, run: str) -> tuple[Tensor, Tensor, Tensor]:
        """Latents, timesteps and text of one of the recorded calls, as batches of two."""
        sample = torch.cat([self.tensors["latents"][call : call + 1]] * 2)
        return sample, self.tensors["timesteps"][call].expand(2), self.tensors[f"{run}.text"]

    @torch.no_grad()
    def raw(self, index: int, call: int, run: str) -> tuple[Tensor, ...]:
        made: tuple[Tensor, ...] = self.branches[index](*self.inputs(call, run), None).layers
        return made

    @torch.no_grad()
    def predicted(self, call: int, run: str, concepts: list[tuple[Modulation | None, float]]) -> Tensor:
        """The prediction with our edits on the published U-Net, through hook points."""
        pipe = Holder(self.unet)
        patch = efface.Patch(pipe)
        for index, (modulation, strength) in enumerate(concepts):
            for layer, point in enumerate([p for p in patch.points if p.kind in ("skip", "mid")]):
                patch.output(point, self.edit(index, call, run, layer, modulation, strength))
        wiring = Wiring(pipe)
        wiring.set([patch])
        try:
            sample, timestep, text = self.inputs(call, run)
            found: Tensor = self.unet(sample, timestep, encoder_hidden_states=text).sample
            return found
        finally:
            wiring.clear()

    def edit(self, index: int, call: int, run: str, layer: int, modulation: Modulation | None, strength: float) -> Any:
        output = self.raw(index, call, run)[layer]

        def add(feature: Tensor, now: efface.Call) -> Tensor:
            ones = torch.ones(len(feature), dtype=torch.float64)
            weights = ones if modulation is None else modulation(now.timestep, 1000, output)[:, layer]
            return joined(feature, output, weights, "time_layer", strength * ones)

        return add


@pytest.fixture(scope="module")
def published() -> Published:
    return Published()


CALLS = range(5)


def near(one: Tensor, other: Tensor, tolerance: float = RESULTS) -> bool:
    return one.shape == other.shape and float((one - other).abs().max()) <= tolerance


def test_the_bins_are_the_published_ones(published: Published) -> None:
    found = published.table(0).bin_of(published.tensors["timesteps"], published.params["T"])
    assert found.tolist() == published.params["bins"]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("index", [0, 1])
def test_the_branch_makes_the_published_outputs(published: Published, index: int, call: int) -> None:
    for layer, output in enumerate(published.raw(index, call, "n2")):
        assert near(output, published.tensors[f"n2.raw{index}.l{layer:02d}"][call])


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("run", "count"), [("n1", 1), ("n2", 2)])
def test_scaled_and_summed_they_are_the_published_residuals(
    published: Published, run: str, count: int, call: int
) -> None:
    timestep = published.tensors["timesteps"][call].expand(2)
    for layer in range(published.layers):
        total = torch.zeros_like(published.tensors[f"{run}.total.l{layer:02d}"][call])
        for index in range(count):
            output = published.raw(index, call, run)[layer]
            weights = published.table(index)(timestep, 1000, output)[:, layer]
            total = joined(total, output, weights, "time_layer", published.tensors[f"{run}.m"][index].expand(2))
        assert near(total, published.tensors[f"{run}.total.l{layer:02d}"][call])


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("run", "count"), [("n1", 1), ("n2", 2)])
def test_on_the_decoder_they_give_the_published_prediction(
    published: Published, run: str, count: int, call: int
) -> None:
    strengths = published.tensors[f"{run}.m"].tolist()
    concepts: list[Any] = [(published.table(index), strengths[index]) for index in range(count)]
    assert near(published.predicted(call, run, concepts), published.tensors[f"{run}.out"][call])
    assert near(published.predicted(call, run, []), published.tensors[f"{run}.out_unedited"][call])


@pytest.mark.parametrize("call", CALLS)
def test_without_table_and_gate_it_is_the_published_branch_alone(published: Published, call: int) -> None:
    assert near(published.predicted(call, "n2", [(None, 1.0)]), published.tensors["epr_only.out"][call])


@pytest.mark.parametrize("prompt", range(4))
def test_the_gate_gives_the_published_scores(prompt: int) -> None:
    tensors, params = read("dumo_gate")
    names, ids = tensors["erased.embeds"], tensors["erased.ids"].tolist()
    special = frozenset(tensors["special_ids"].tolist())
    own = part(tensors, f"p{prompt}.")
    assert near(similarity(own["embeds"], names)[0], own["clipcos"], SCORES)
    assert near(overlap(own["ids"].tolist(), ids, special)[0], own["tokenuni"], SCORES)
    for concept in range(params["n_concepts"]):
        mine = tensors["group_of_name"] == concept
        chosen = [tokens for tokens, yes in zip(ids, mine.tolist(), strict=True) if yes]
        gate = Gate("both", params["facilitate_factor"], 0.0, names[mine], chosen, special)
        assert near(gate.scores(own["embeds"], own["ids"].tolist())[0], own["clipcos_tokenuni"][mine], SCORES)
        assert near(gate.of(own["embeds"], own["ids"].tolist()), own["m"][concept : concept + 1], SCORES)
