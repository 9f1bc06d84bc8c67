"""The whole chain through a text encoder of twelve blocks: exact where it was edited, and progressive."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

import efface
from efface.testing import tiny_pipeline
from efface_erasepro.batch import Batch, Cells, batch
from efface_erasepro.erasepro import ErasePro
from efface_erasepro.templates import templates

BLOCKS, WIDTH = 12, 256
REQUEST = efface.Request((efface.Concept("red cat", anchor="blue dog"),), templates=("a {}",))
UNSEEN = ("a bird and a {}", "van {} tree", "the car by {}", "{} of house", "fish in the {}", "a house by the {}")
FIRST = "text_encoder.layers.0.self_attn.v_proj"
ALL = {"templates": 8, "columns": "tokens", "pads": 2, "damping": 0.0, "keep_weight": 0.0, "invariants": 1}


@pytest.fixture(scope="module")
def deep() -> Any:
    """A pipeline with a text encoder of SD 1.x's depth, in float64 so that only the stored factors round."""
    from transformers import CLIPTextConfig, CLIPTextModel

    pipe = tiny_pipeline("sd1")
    narrow = pipe.text_encoder.config.to_dict()
    wide = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_hidden_layers": BLOCKS, "num_attention_heads": 4}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipe.text_encoder = CLIPTextModel(CLIPTextConfig(**narrow | wide)).double().eval()
        unet = type(pipe.unet).from_config(dict(pipe.unet.config) | {"cross_attention_dim": WIDTH})
        pipe.unet = unet.double().eval()
    pipe.vae.double()
    return pipe


def fitted(pipe: Any, **settings: Any) -> efface.Erasure:
    return efface.erase(pipe, REQUEST.concepts, templates=REQUEST.templates, method="erasepro", settings=ALL | settings)


@pytest.fixture(scope="module")
def whole(deep: Any) -> efface.Erasure:
    return fitted(deep)


@pytest.fixture(scope="module")
def direct(deep: Any) -> efface.Erasure:
    return fitted(deep, chain=["unet.text"])


@pytest.fixture(scope="module")
def prompts(deep: Any) -> Batch:
    settings = ErasePro(columns="tokens", pads=2, invariants=1)
    return batch(efface.Model(deep), REQUEST, templates(REQUEST, 8), settings.choice)


@contextmanager
def outputs(pipe: Any, names: list[str]) -> Iterator[dict[str, Tensor]]:
    """What modules of the text encoder give, less their bias, for as long as the context is open."""
    found: dict[str, Tensor] = {}

    def listen(name: str, bias: Tensor) -> Any:
        return lambda _, args, given: found.update({name: given - bias})

    places = [place for place in efface.Model(pipe).points() if place.name in names]
    modules = {place.name: pipe.text_encoder.get_submodule(place.path) for place in places}
    handles = [module.register_forward_hook(listen(name, module.bias)) for name, module in modules.items()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def at(cells: Cells, x: Tensor) -> Tensor:
    return cells.features(x)


def text(pipe: Any, erasure: efface.Erasure, given: tuple[str, ...]) -> Tensor:
    """What the U-Net reads (B, T, d) with the erasure on, closing step included."""
    with efface.Editor(pipe, erasure):
        hidden = efface.Model(pipe).encode(given).hidden
    tensors = {name: tensor.double() for name, tensor in erasure.tensors.items()}
    closing = tensors["closing.map"] if "closing.map" in tensors else tensors["closing.up"] @ tensors["closing.down"]
    return hidden + hidden @ closing.T


def change(erasure: efface.Erasure, point: str) -> float:
    return float(next(one["change"] for one in erasure.header.report["modules"] if one["point"] == point))


def test_every_module_gives_for_the_target_what_the_base_gives_for_the_anchor(
    deep: Any, whole: efface.Erasure, prompts: Batch
) -> None:
    """Seen again after the whole chain is on: a later edit that changed an earlier input would show here."""
    names = [one["point"] for one in whole.header.report["modules"] if one["point"] != "closing"]
    assert len(names) == 2 * BLOCKS
    model = efface.Model(deep)
    with outputs(deep, names) as base:
        model.encode(prompts.prompts, 1000)
    wanted = {name: at(prompts.anchors, given) for name, given in base.items()}
    with efface.Editor(deep, whole), outputs(deep, names) as edited:
        model.encode(prompts.prompts, 1000)
    left = {
        name: float((at(prompts.targets, given) - wanted[name]).norm() / wanted[name].norm())
        for name, given in edited.items()
    }
    assert all(left[name] < 1e-5 for name in names if name != FIRST)
    told = next(one for one in whole.header.report["modules"] if one["point"] == FIRST)
    assert told["out of reach"] > 1e-3
    assert not told["zero"]
    assert left[FIRST] == pytest.approx(told["residual"]["solved"], rel=1e-3)


def test_changes_get_smaller_from_shallow_to_deep(whole: efface.Erasure) -> None:
    for module in ("self_attn.v_proj", "mlp.fc2"):
        each = [change(whole, f"text_encoder.layers.{depth}.{module}") for depth in range(BLOCKS)]
        assert each[-1] <= 0.7 * each[0]
        assert all(later <= 1.15 * earlier for earlier, later in pairwise(each))


def test_little_is_left_for_the_closing_step(whole: efface.Erasure, direct: efface.Erasure) -> None:
    assert change(whole, "closing") <= 0.4 * change(direct, "closing")


def test_after_the_closing_step_nothing_is_left_on_the_prompts_it_was_fitted_to(
    deep: Any, whole: efface.Erasure, prompts: Batch
) -> None:
    anchors = at(prompts.anchors, efface.Model(deep).encode(prompts.prompts).hidden)
    found = at(prompts.targets, text(deep, whole, prompts.prompts))
    assert (found - anchors).norm() < 1e-5 * anchors.norm()
    assert all(left < 1e-5 for left in whole.header.report["residual"].values())
    assert all(left > 0.01 for left in whole.header.report["residual before closing"].values())


def test_prompts_that_were_not_fitted_come_nearer_to_their_anchors_than_by_one_direct_edit(
    deep: Any, whole: efface.Erasure, direct: efface.Erasure
) -> None:
    targets, anchors = (tuple(one.replace("{}", phrase) for one in UNSEEN) for phrase in ("red cat", "blue dog"))
    wanted = efface.Model(deep).encode(anchors).hidden

    def gap(erasure: efface.Erasure) -> float:
        return float((text(deep, erasure, targets) - wanted).norm() / wanted.norm())

    assert gap(whole) < gap(direct)


def test_the_start_stays_exactly(deep: Any, whole: efface.Erasure) -> None:
    base = efface.Model(deep).encode(["a red cat"]).hidden[0, 0]
    assert (text(deep, whole, ("a red cat",))[0, 0] - base).norm() < 1e-6 * base.norm()
