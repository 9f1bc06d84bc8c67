"""What several erasures do to each other's concepts: each alone, and all of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from PIL import Image

import efface
from efface.evaluation.evaluating import evaluate
from efface.evaluation.interaction import matrix
from efface.evaluation.scores import Estimate, Evaluation
from efface_hooks import Wiring

Evaluate = Callable[..., Evaluation]

HIDES = {"tilt": ("cat",), "bend": ("dog", "bird")}


@pytest.fixture
def evaluated(
    pipe: Any,
    registry: efface.Registry,
    colours: Any,
    painted: Callable[..., Image.Image],
    stack: Mapping[str, efface.Erasure],
    monkeypatch: pytest.MonkeyPatch,
) -> Evaluate:
    """Evaluates erasures on a model that paints what a prompt names, but for what the erasures that are on hide."""

    def painting(pipe: Any, prompts: Any, seeds: Any, **how: Any) -> list[Image.Image]:
        named = [word for word in ("cat", "dog", "bird") if word in prompts[0].split()]
        hidden = [word for name in on(pipe) for word in HIDES[name]]
        return [painted(*(word for word in named if word not in hidden)) for _ in seeds]

    monkeypatch.setattr("efface.evaluation.studio.generate", painting)

    def evaluated(*names: str, **options: Any) -> Evaluation:
        given = {"model": "tiny", "registry": registry, "suite": colours, "seeds": (3, 4), "steps": 1} | options
        return evaluate(pipe, [stack[name] for name in names], **given)

    return evaluated


@pytest.fixture
def stack(pipe: Any, registry: efface.Registry) -> Mapping[str, efface.Erasure]:
    return {
        "tilt": efface.erase(pipe, "cat", anchor="tree", method="tilt", registry=registry),
        "bend": efface.erase(pipe, "dog", anchor="tree", method="bend", registry=registry),
    }


def on(pipe: Any) -> Sequence[str]:
    """The erasures that are on, told by what they edit."""
    wiring = Wiring.of(pipe)
    edited = {edit.point.kind for patch in wiring.patches for edit in patch.edits} if wiring else set()
    return [name for name, kind in (("tilt", "text"), ("bend", "mid")) if kind in edited]


def values(row: Sequence[Estimate | None]) -> list[float | None]:
    return [None if one is None else one.value for one in row]


def test_each_concept_meets_each_erasure_alone_and_all_of_them(evaluated: Evaluate) -> None:
    crossed = matrix(evaluated("tilt", "bend"))
    assert crossed is not None
    assert crossed.columns == ("base", "tilt-cat", "bend-dog", "stack")
    assert {name: values(row) for name, row in crossed.rows.items()} == {"cat": [1, 0, 1, 0], "dog": [1, 1, 0, 0]}
    lost = values(crossed.lost)
    assert lost[:2] == [None, 0]
    assert lost[2] == lost[3] == 0.5, "the bird, which is one of two other concepts"


def test_an_erasure_alone_has_all_figures_of_its_own_concepts(evaluated: Evaluate) -> None:
    together = evaluated("tilt", "bend")
    assert [(one.label, list(one.concepts)) for one in together.alone] == [("tilt-cat", ["cat"]), ("bend-dog", ["dog"])]
    tilt, bend = together.alone
    assert tilt.concepts["cat"].specificity_drop == tilt.lost
    assert tilt.concepts["cat"].efficacy == tilt.shown["cat"]
    scenes = [one.locality_other for one in (tilt.concepts["cat"], bend.concepts["dog"])]
    assert [None if one is None else one.value for one in scenes] == [1, 0], "a cat or a dog beside a bird"
    assert json.loads(json.dumps(together.to_json()["alone"]))[1]["shown"]["cat"]["value"] == 1


def test_alone_it_does_what_it_does_in_an_evaluation_of_its_own(evaluated: Evaluate) -> None:
    together = evaluated("tilt", "bend", scales=[1, 0.5])
    assert together.alone[1].shown["dog"] == evaluated("bend", scales=[0.5]).concepts["dog"].efficacy


@pytest.mark.parametrize(("names", "options"), [(["tilt"], {}), (["tilt", "bend"], {"each_alone": False})])
def test_one_erasure_is_no_stack_and_a_stack_can_do_without(
    evaluated: Evaluate, names: list[str], options: dict[str, Any]
) -> None:
    found = evaluated(*names, **options)
    assert (found.alone, matrix(found)) == ((), None)
    assert found.sampling["pictures"].keys() == {"base", "edited"}


def test_an_erasure_at_scale_zero_is_nothing_to_look_at_alone(evaluated: Evaluate) -> None:
    assert [one.label for one in evaluated("tilt", "bend", scales=[0, 1]).alone] == ["bend-dog"]


def test_the_controls_stay_rows_of_their_own(evaluated: Evaluate) -> None:
    found = evaluated("tilt", "bend", controls=["blank"])
    assert list(found.controls) == ["blank"]
    assert list(found.sampling["pictures"]) == ["base", "edited", "blank", "tilt-cat", "bend-dog"]


def test_of_the_others_concepts_no_more_is_drawn_than_their_share_takes(evaluated: Evaluate) -> None:
    pictures = evaluated("tilt", "bend").sampling["pictures"]
    assert pictures["tilt-cat"] < pictures["edited"]
    assert pictures["bend-dog"] < pictures["edited"]
