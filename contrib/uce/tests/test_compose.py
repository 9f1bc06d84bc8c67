"""Solved as one, erasures of UCE are what fitting all their concepts at once gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

import efface
from efface.testing import FAMILIES, tiny_pipeline

CONCEPTS = (
    efface.Concept("cat", "dog", ("kitten",)),
    efface.Concept("red car", "house"),
    efface.Concept("van gogh", "painting", kind="style"),
)
KEEP = ("a bird", "fish", "the tree")


@pytest.fixture(scope="module", params=[torch.float32, torch.float64], ids=["float32", "float64"])
def pipe(request: pytest.FixtureRequest) -> Any:
    return tiny_pipeline("sd1", dtype=request.param)


def fit(pipe: Any, *concepts: efface.Concept, keep: Sequence[str] = KEEP, **options: Any) -> efface.Erasure:
    return efface.erase(pipe, concepts, method="uce", keep=keep, **options)


def change(erasure: efface.Erasure) -> Tensor:
    """E of the map x + E x, float64."""
    tensors = {name: tensor.double() for name, tensor in erasure.tensors.items()}
    return tensors["map"] if "map" in tensors else tensors["up"] @ tensors["down"]


def assert_equal(pipe: Any, one: efface.Erasure, other: efface.Erasure) -> None:
    """To the rounding of the pipeline's precision: prompts that are encoded in other batches differ by it."""
    tolerance = 1e-6 if pipe.unet.dtype == torch.float32 else 1e-10
    torch.testing.assert_close(change(one), change(other), rtol=0, atol=tolerance * float(change(other).norm()))
    assert one.request == other.request
    assert one.header.facts == other.header.facts
    assert one.tensors.keys() == other.tensors.keys()
    for name in ("targets", "anchors", "keep"):
        torch.testing.assert_close(one.tensors[name], other.tensors[name], rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    "settings", [{}, {"tokens": "subject", "lamb": 0.1, "preserve_scale": 2}], ids=["tail", "subject"]
)
def test_composed_equals_fitted_at_once(settings: Any, pipe: Any) -> None:
    each = [fit(pipe, concept, settings=settings) for concept in CONCEPTS]
    assert_equal(pipe, efface.compose(*each), fit(pipe, *CONCEPTS, settings=settings))


def test_so_do_several_templates(pipe: Any) -> None:
    templates = ["{}", "a photo of {}"]
    each = [fit(pipe, concept, templates=templates) for concept in CONCEPTS]
    assert_equal(pipe, efface.compose(*each), fit(pipe, *CONCEPTS, templates=templates))


def test_added_one_by_one_it_is_the_same_to_the_last_bit(pipe: Any) -> None:
    one, two, three = (fit(pipe, concept) for concept in CONCEPTS)
    step, at_once = efface.compose(efface.compose(one, two), three), efface.compose(one, two, three)
    assert all(torch.equal(step.tensors[name], tensor) for name, tensor in at_once.tensors.items())


@pytest.mark.parametrize("gone", range(3))
def test_removed_is_never_added(gone: int, pipe: Any) -> None:
    each = [fit(pipe, concept) for concept in CONCEPTS]
    left = [concept for concept in CONCEPTS if concept is not CONCEPTS[gone]]
    removed = efface.compose(efface.compose(*each), remove=[CONCEPTS[gone].text])
    assert_equal(pipe, removed, fit(pipe, *left))


def test_an_erasure_of_several_concepts_gives_up_any_of_them(pipe: Any) -> None:
    both = fit(pipe, *CONCEPTS[:2])
    assert_equal(pipe, efface.compose(both, remove=["cat"]), fit(pipe, CONCEPTS[1]))
    assert_equal(pipe, efface.compose(both, remove=["red car"]), fit(pipe, CONCEPTS[0]))


def test_what_any_of_them_keeps_is_kept(pipe: Any) -> None:
    cat, car = fit(pipe, CONCEPTS[0], keep=["a bird", "fish"]), fit(pipe, CONCEPTS[1], keep=["fish", "the tree"])
    assert_equal(pipe, efface.compose(cat, car), fit(pipe, *CONCEPTS[:2]))


def test_what_another_one_erases_is_kept_no_longer(pipe: Any) -> None:
    cat, car = fit(pipe, CONCEPTS[0], keep=["Red car", "fish"]), fit(pipe, CONCEPTS[1], keep=["kitten"])
    assert_equal(pipe, efface.compose(cat, car), fit(pipe, *CONCEPTS[:2], keep=["fish"]))


def test_nothing_need_be_kept(pipe: Any) -> None:
    joint = efface.compose(*(fit(pipe, concept, keep=()) for concept in CONCEPTS))
    torch.testing.assert_close(change(joint), change(fit(pipe, *CONCEPTS, keep=())), rtol=0, atol=1e-6)
    assert "keep" not in joint.tensors
    assert "kept" not in joint.header.report


def test_the_report_says_what_is_left_side_by_side_and_in_the_joint_solution(pipe: Any) -> None:
    each = [fit(pipe, concept) for concept in CONCEPTS]
    joint = efface.compose(*each)
    stacked = torch.stack([change(one) for one in each]).sum(0)
    for concept, own in zip(CONCEPTS, each, strict=True):
        targets, anchors = own.tensors["targets"].double(), own.tensors["anchors"].double()
        left = joint.header.report["composition"][concept.text]
        for name, edit in (("stacked", stacked), ("joint", change(joint))):
            share = (targets + edit @ targets - anchors).norm() / (anchors - targets).norm()
            assert left[name] == pytest.approx(float(share), rel=1e-5)
    kept, moved = joint.tensors["keep"].double(), joint.header.report["kept"]
    assert moved["stacked"] == pytest.approx(float((stacked @ kept).norm() / kept.norm()), rel=1e-5)
    assert moved["joint"] == pytest.approx(float((change(joint) @ kept).norm() / kept.norm()), rel=1e-5)


def test_the_joint_solution_costs_less_than_the_sum(pipe: Any) -> None:
    """What eq. 7 minimises, over the columns of all."""
    each = [fit(pipe, concept) for concept in CONCEPTS]
    joint = efface.compose(*each)
    tensors = {name: joint.tensors[name].double() for name in ("targets", "anchors", "keep")}

    def cost(edit: Tensor) -> float:
        missed = tensors["targets"] + edit @ tensors["targets"] - tensors["anchors"]
        return float(missed.square().sum() + (edit @ tensors["keep"]).square().sum() + 0.5 * edit.square().sum())

    assert cost(change(joint)) < cost(torch.stack([change(one) for one in each]).sum(0))


def test_columns_keep_the_pipelines_precision_where_it_is_wider(pipe: Any) -> None:
    erasure = fit(pipe, *CONCEPTS)
    assert {tensor.dtype for tensor in erasure.tensors.values()} == {pipe.unet.dtype}
    assert erasure.header.facts["columns"] == [15, 15, 14, 13]  # of 16, from each phrase's last one on


@pytest.mark.parametrize("family", FAMILIES)
def test_a_composed_erasure_is_one_like_any_other(family: Any, tmp_path: Any) -> None:
    pipe = tiny_pipeline(family)
    joint = efface.compose(*(fit(pipe, concept) for concept in CONCEPTS))
    joint.save(tmp_path / "all.safetensors")
    loaded = efface.Erasure.load(tmp_path / "all.safetensors")
    assert loaded == joint
    with efface.Editor(pipe, loaded) as editor:
        (planned,) = editor.plan().erasures
        assert (planned.points, planned.other_base) == (("unet.text",), False)


def test_the_plan_says_that_they_can_be_solved_as_one(pipe: Any) -> None:
    plan = efface.Editor(pipe).plan(*(fit(pipe, concept) for concept in CONCEPTS))
    (note,) = (finding for finding in plan.findings if finding.about == "joint")
    assert note.labels == ("uce-cat", "uce-red-car", "uce-van-gogh")
