"""GLoCE against the published implementation (reference/README.md)."""

from __future__ import annotations

import functools
import json
import operator
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import PNDMScheduler, UNet2DConditionModel
from safetensors import safe_open
from torch import Tensor

import efface
from efface_gloce.artifact import packed
from efface_gloce.closed_form import leading, slope, target, threshold
from efface_gloce.gate import Gates
from efface_gloce.gated import GatedLayer, Terms
from efface_gloce.gloce import attach
from efface_gloce.layer import Layer
from efface_gloce.moments import Running, pyramid, spread
from efface_gloce.sampling import Sampling, Window, trajectories
from efface_hooks import Wiring

REFERENCE = Path(__file__).parent / "reference"
LAYERS = ["n1_r113_eta5", "n1_r211", "n3_ties", "n4_distinct_r113_eta5", "n5_shared_r211"]
SETS = ("mapping", "target", "gate", "anchor")

Case = tuple[dict[str, Tensor], dict[str, Any]]


def case(name: str) -> Case:
    with safe_open(REFERENCE / f"gloce_{name}.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        exact = {key: one.double() if one.is_floating_point() else one for key, one in tensors.items()}
        return exact, json.loads(file.metadata()["params"])


def layer(tensors: dict[str, Tensor], prefix: str = "", **changed: Tensor) -> Layer:
    names = {
        "centre": "m",
        "gate_basis": "V_gate",
        "map_basis": "V_map",
        "map_mean": "mu_map",
        "slope": "k",
        "target_mean": "mu_tar",
        "threshold": "c",
        "update": "U",
    }
    return Layer(**{part: changed.get(part, tensors[prefix + name]) for part, name in names.items()})


def distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


# One layer


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_of_gates_equals_the_published_one(name: str) -> None:
    tensors, params = case(f"layer_{name}")
    found = layer(tensors)
    gated = GatedLayer("point", found, [Terms(params["eta"], 1000, 0)] * found.concepts, "first")
    call: Any = SimpleNamespace(timestep=torch.full((len(tensors["x"]),), 500))
    gate = gated.gate(tensors["x"], call)
    opened = gate.open > 0
    torch.testing.assert_close(gate.open, tensors["gate"], rtol=0, atol=1e-10)
    assert torch.equal(gate.winner[opened], tensors["winner"][opened])
    torch.testing.assert_close(gated(tensors["x"], call), tensors["out"], rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", LAYERS)
def test_in_float32_it_differs_by_what_the_steep_gate_makes_of_rounding(name: str) -> None:
    tensors, params = case(f"layer_{name}")
    found = layer(tensors).each(Tensor.float)
    gated = GatedLayer("point", found, [Terms(params["eta"], 1000, 0)] * found.concepts, "first")
    call: Any = SimpleNamespace(timestep=torch.full((len(tensors["x"]),), 500))
    result = gated(tensors["x"].float(), call).double()
    torch.testing.assert_close(result, tensors["out"], rtol=0, atol=1e-2 if "distinct" in name else 2e-3)


def test_away_from_ties_the_higher_logit_is_the_published_winner() -> None:
    tensors, params = case("layer_n4_distinct_r113_eta5")
    gated = GatedLayer("point", layer(tensors), [Terms(params["eta"], 1000, 0)] * 4)
    call: Any = SimpleNamespace(timestep=torch.zeros(len(tensors["x"])))
    torch.testing.assert_close(gated(tensors["x"], call), tensors["out"], rtol=0, atol=1e-10)


# The fit


@pytest.fixture(scope="module")
def fitted() -> Case:
    return case("fit")


def features(tensors: dict[str, Tensor], number: int, what: str) -> Tensor:
    """(prompts, seeds, steps, T, D)."""
    return tensors[f"layer{number}.feat.{what}"]


def summed(prompts: Tensor) -> Any:
    """Mean and covariance of a set of prompts, fed in step by step."""
    side, found = int(prompts.shape[-2] ** 0.5), []
    for prompt in prompts:
        running = Running()
        for step in prompt.flatten(0, 1):
            running.add(pyramid(step[None], (side, side)))
        found.append(running.moments())
    return spread(functools.reduce(operator.add, found))


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_fit_of_recorded_features_equals_the_published_one(fitted: Case, number: int) -> None:
    tensors, params = fitted
    mapping, own, gate = (summed(features(tensors, number, what)) for what in SETS[:3])
    basis = leading(mapping.covariance, params["r1"]).vectors
    found = target(own, basis, gate.mean, params["r2"], params["r3"])
    peaks = Gates(found.gate_basis[None], gate.mean[None])(features(tensors, number, "anchor")).amax(-2)

    def wanted(name: str) -> Tensor:
        return tensors[f"layer{number}.{name}"]

    assert distance(mapping.mean, wanted("mu_map")) < 1e-9
    assert distance(own.mean, wanted("mu_tar")) < 1e-9
    assert distance(gate.mean, wanted("m")) < 1e-9
    assert distance(basis @ basis.T, wanted("P_map")) < 1e-9
    assert distance(basis @ found.update.T, wanted("V_map_Ut")) < 1e-9
    assert distance(found.gate_basis @ found.gate_basis.T, wanted("P_gate")) < 1e-9
    assert distance(threshold(peaks, params["tau"]), wanted("c")) < 1e-9
    assert slope(params["tau"]) == pytest.approx(float(wanted("k")), rel=1e-9)


class Bare:
    """A U-Net in float64, with as much of a pipeline around it as trajectories need."""

    def __init__(self, tensors: dict[str, Tensor], params: dict[str, Any], config: dict[str, Any]) -> None:
        self.unet = UNet2DConditionModel(**params["unet_config"])
        self.unet.load_state_dict(
            {name.removeprefix("unet."): tensor for name, tensor in tensors.items() if name.startswith("unet.")}
        )
        self.unet.double().eval()
        self.scheduler = PNDMScheduler(**config)
        self.config: dict[str, Any] = {}
        self.vae_scale_factor = 8
        self._execution_device = torch.device("cpu")


@pytest.fixture(scope="module")
def whole() -> Case:
    return case("e2e")


@pytest.fixture(scope="module")
def pipe(whole: Case) -> Bare:
    tensors, params = whole
    return Bare(tensors, params, params["scheduler_config"])


def encoded(text: Tensor) -> efface.Encoded:
    nothing = torch.zeros(len(text), dtype=torch.long)
    return efface.Encoded(("",) * len(text), text, text[..., 0].long(), nothing, nothing, nothing)


def test_the_trajectories_of_a_fit_are_the_published_ones(fitted: Case, pipe: Bare) -> None:
    """Up to 1e-3: this U-Net makes 1e-4 of what libraries round differently in the scheduler's float32 numbers."""
    tensors, params = fitted
    text = torch.cat([tensors[f"text.{what}"][:1] for what in SETS])
    sampling = Sampling(Window(775, 754), params["num_inference_steps"], params["cfg"], "lms")
    heard: dict[str, list[Tensor]] = {name: [] for name in params["layers"]}
    places = {path: name for name, path in params["layers"].items()}

    def listen(point: efface.HookPoint, found: Tensor, call: efface.Call) -> None:
        heard[places[point.path]].append(found)

    model = efface.Model(pipe, efface.Registry())
    nothing = encoded(tensors["text.uncond"].expand(len(text), -1, -1))
    noise = tensors["init_noise"][1:].expand(len(text), -1, -1, -1)
    hooked = [point for point in model.points("cross_attn.out") if point.path in places]
    for _ in trajectories(model, encoded(text), nothing, noise, sampling, hooked, listen):
        pass
    assert sampling.calls(pipe) == params["end"] + 1
    for name, steps in heard.items():
        published = torch.stack([tensors[f"{name}.feat.{what}"][0, 1] for what in SETS])
        assert distance(torch.stack(steps, 1), published) < 1e-3


# Two concepts on a U-Net


@pytest.fixture(params=["soft", "fitk"])
def edited(request: pytest.FixtureRequest, whole: Case, pipe: Bare) -> Iterator[tuple[str, Bare]]:
    """The U-Net with both concepts, in the variant of that name."""
    tensors, params = whole
    slopes = {"slope": torch.full((2,), params["k_soft"], dtype=torch.float64)} if request.param == "soft" else {}
    layers = {f"unet.{path}": layer(tensors, f"layer{n}.", **slopes) for n, path in enumerate(params["layers"])}
    fit = efface.Fit(*packed(layers, [Terms(params["eta"], params["t_on"], 0)] * 2))
    patch = efface.Patch(pipe)
    attach(patch, [efface.Fitted(fit, efface.Request((efface.Concept("one"), efface.Concept("other"))))], "first")
    wiring = Wiring(pipe)
    wiring.set([patch])
    yield request.param, pipe
    wiring.clear()


@torch.no_grad()
def test_single_calls_of_the_unet_equal_the_published_ones(whole: Case, edited: tuple[str, Bare]) -> None:
    (tensors, params), (variant, pipe) = whole, edited
    for prompt in ("prompt0", "prompt1"):
        for number, timestep in enumerate(params["call_timesteps"][variant]):
            latents = tensors[f"{variant}.{prompt}.latents"][number].repeat(2, 1, 1, 1)
            result = pipe.unet(latents, timestep, tensors[f"{prompt}.text"]).sample
            torch.testing.assert_close(result, tensors[f"{variant}.{prompt}.eps"][number], rtol=0, atol=1e-8)
            if variant == "soft" and prompt == "prompt0" and timestep > params["t_on"]:
                base = tensors["soft.prompt0.eps_base"][number]
                torch.testing.assert_close(result, base, rtol=0, atol=1e-12)


@pytest.mark.parametrize("edited", ["soft"], indirect=True)
@torch.no_grad()
def test_a_whole_trajectory_ends_where_the_published_one_does(whole: Case, edited: tuple[str, Bare]) -> None:
    (tensors, params), (variant, pipe) = whole, edited
    pipe.scheduler.set_timesteps(params["num_inference_steps"])
    latents, calls = tensors["init_noise"] * pipe.scheduler.init_noise_sigma, 0
    for timestep in pipe.scheduler.timesteps:
        without, found = pipe.unet(torch.cat([latents] * 2), timestep, tensors["prompt0.text"]).sample.chunk(2)
        latents = pipe.scheduler.step(without + params["cfg"] * (found - without), timestep, latents).prev_sample
        calls += 1
    assert calls == params["n_calls"]
    assert distance(latents, tensors[f"{variant}.prompt0.final"]) < 1e-3
    assert distance(latents, tensors["prompt0.final_base"]) > 1e-2
