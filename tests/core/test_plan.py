"""A plan says what a list of erasures touches and where they meet."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from efface import Editor, Erasure, Registry
from efface.fingerprint import Likeness
from efface.planning import planned
from efface.testing.pipelines import tiny_pipeline
from efface_hooks import LowRank, Patch

Erasures = Mapping[str, Erasure]


@pytest.fixture
def editor(pipe: Any, registry: Registry, erasures: Erasures) -> Any:
    names = ("tilt", "fade", "nudge", "tilt dog", "bend")
    with Editor(pipe, *(erasures[name] for name in names), registry=registry) as editor:
        yield editor


def test_a_plan_lists_every_erasure_in_order_with_what_it_touches(editor: Editor, toys: Any) -> None:
    plan = editor.plan()
    assert [(one.label, dict(one.kinds)) for one in plan.erasures] == [
        ("tilt-cat", {"text": 1}),
        ("fade-cat", {"step": 1, "skip": 12}),
        ("nudge-cat", {"cross_attn.v": 1, "weight": 1}),
        ("tilt-dog", {"text": 1}),
        ("bend-cat", {"self_attn.q": 1, "mid": 1}),
    ]
    assert plan.erasures[2].points == (toys["nudge"].VALUE, toys["nudge"].CONVOLUTION)
    assert all(not one.other_base and one.base_difference == 0 for one in plan.erasures)


def test_a_plan_says_where_erasures_meet(editor: Editor, erasures: Erasures) -> None:
    assert dict(editor.plan().meetings) == {"unet.text": ("tilt-cat", "tilt-dog")}
    editor.attach(erasures["bend dog"])
    assert set(editor.plan().meetings) == {"unet.text", "unet.mid", *editor.plan().erasures[4].points}


def test_a_plan_says_what_goes_around_an_erasure(editor: Editor) -> None:
    assert [one.bypassed_by for one in editor.plan().erasures] == [("image prompts",), (), (), ("image prompts",), ()]


def test_a_plan_shows_scales_and_what_is_off(editor: Editor) -> None:
    editor.scale("tilt-cat", 0.5)
    editor.scale("fade-cat", 0)
    editor.disable("nudge-cat")
    assert [one.scale for one in editor.plan().erasures] == [0.5, 0, 0, 1, 1]


def test_planning_changes_nothing(editor: Editor, pipe: Any, hooks: Any, state: Any) -> None:
    wired, before = hooks(pipe), state(pipe)
    editor.plan()
    assert hooks(pipe) == wired
    assert state(pipe) == before


def test_a_plan_prints_as_a_table(editor: Editor) -> None:
    editor.disable("nudge-cat")
    editor.scale("tilt-cat", 0.25)
    assert str(editor.plan()).splitlines() == [
        "1. tilt-cat (scale 0.25): 1 text; bypassed by image prompts",
        "2. fade-cat (scale 1): 1 step, 12 skip",
        "3. nudge-cat (off): 1 cross_attn.v, 1 weight",
        "4. tilt-dog (scale 1): 1 text; bypassed by image prompts",
        "5. bend-cat (scale 1): 1 self_attn.q, 1 mid",
        "meet at unet.text: tilt-cat, tilt-dog",
    ]


def test_a_plan_of_nothing_says_so(pipe: Any, registry: Registry) -> None:
    assert str(Editor(pipe, registry=registry).plan()) == "nothing attached"


def test_a_plan_is_json(editor: Editor) -> None:
    data = json.loads(json.dumps(editor.plan().to_json()))
    assert data["meetings"] == {"unet.text": ["tilt-cat", "tilt-dog"]}
    assert data["erasures"][1]["kinds"] == {"step": 1, "skip": 12}
    assert data["erasures"][1]["points"][:2] == ["unet.step", "unet.skip.0"]
    assert set(data["erasures"][0]) == {
        "label",
        "scale",
        "points",
        "kinds",
        "bypassed_by",
        "base_difference",
        "other_base",
    }


@pytest.mark.parametrize(("allowed", "shown"), [(1e-3, True), (1e-2, False)])
def test_another_base_is_shown_by_the_tolerance_it_was_held_to(
    allowed: float, shown: bool, pipe: Any, toys: Any
) -> None:
    patch = Patch(pipe)
    plan = planned([("one", 1.0, patch)], {"one": toys["tilt"]}, {"one": Likeness(0.005, allowed)})
    assert ("another base (differs by 0.005)" in str(plan)) is shown
    assert plan.erasures[0].other_base is shown


def test_another_base_that_was_allowed_is_shown(registry: Registry, erasures: Erasures) -> None:
    stranger = tiny_pipeline("sd1", seed=1)
    with Editor(stranger, erasures["tilt"], allow_other_base=True, registry=registry) as editor:
        (one,) = editor.plan().erasures
        assert one.other_base
        assert f"another base (differs by {one.base_difference:.2g})" in str(editor.plan())


def test_a_point_that_an_erasure_edits_twice_counts_once(pipe: Any, toys: Any) -> None:
    import torch

    patch = Patch(pipe)
    for _ in range(2):
        patch.map("unet.text", LowRank(torch.zeros(16, 1), torch.zeros(1, 16)))
    plan = planned([("one", 1.0, patch)], {"one": toys["tilt"]}, {"one": Likeness(0.0, 1e-3)})
    assert dict(plan.erasures[0].kinds) == {"text": 1}
    assert dict(plan.meetings) == {}
