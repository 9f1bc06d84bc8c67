"""A plan says what a list of erasures touches, where they meet, and what they add to the U-Net's work."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import efface
from efface import Editor, EffaceError, Erasure, Registry, WrongBase
from efface.fingerprint import Likeness
from efface.method import Covers, check_method
from efface.planning import Candidate, planned
from efface.planning.flops import positions, unet_flops
from efface.testing.pipelines import FAMILIES, tiny_pipeline
from efface_hooks import LowRank, Patch

Erasures = Mapping[str, Erasure]

TOKENS = 16


@pytest.fixture
def editor(pipe: Any, registry: Registry, erasures: Erasures) -> Any:
    names = ("tilt", "fade", "nudge", "tilt dog", "bend")
    with Editor(pipe, *(erasures[name] for name in names), registry=registry) as editor:
        yield editor


@pytest.fixture
def candidate(pipe: Any, toys: Any, erasures: Erasures) -> Callable[..., Candidate]:
    """The erasure "tilt" with another patch or likeness."""

    def candidate(**changed: Any) -> Candidate:
        usual = Candidate("one", 1.0, erasures["tilt"], toys["tilt"](), Patch(pipe), Likeness(0.0, 1e-3))
        return replace(usual, **changed)

    return candidate


def test_a_plan_lists_every_erasure_in_order_with_what_it_touches(editor: Editor, toys: Any) -> None:
    plan = editor.plan()
    assert [(one.label, one.method, dict(one.kinds)) for one in plan.erasures] == [
        ("tilt-cat", "tilt", {"text": 1}),
        ("fade-cat", "fade", {"step": 1, "skip": 12}),
        ("nudge-cat", "nudge", {"cross_attn.v": 1, "weight": 1}),
        ("tilt-dog", "tilt", {"text": 1}),
        ("bend-cat", "bend", {"self_attn.q": 1, "mid": 1}),
    ]
    assert plan.erasures[2].points == (toys["nudge"].VALUE, toys["nudge"].CONVOLUTION)
    assert all(not one.other_base and one.base_difference == 0 for one in plan.erasures)


def test_a_plan_counts_modules_and_the_weights_that_maps_and_adds_change(editor: Editor, pipe: Any, toys: Any) -> None:
    weight = efface.Model(pipe).weight
    readers = efface.points(pipe, "cross_attn.k", "cross_attn.v")
    own = sum(weight(name).numel() for name in (toys["nudge"].VALUE, toys["nudge"].CONVOLUTION))
    assert [(one.modules, one.parameters) for one in editor.plan().erasures] == [
        (32, sum(weight(point).numel() for point in readers)),
        (0, 0),
        (2, own),
        (32, sum(weight(point).numel() for point in readers)),
        (1, 0),
    ]


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


# Before anything is attached


def test_planning_changes_nothing(editor: Editor, pipe: Any, hooks: Any, state: Any, erasures: Erasures) -> None:
    wired, before, entries = hooks(pipe), state(pipe), editor.entries
    editor.plan(erasures["bend dog"], erasures["word"])
    assert hooks(pipe) == wired
    assert state(pipe) == before
    assert editor.entries == entries


def test_what_is_planned_is_what_attaching_would_give(
    editor: Editor, erasures: Erasures, pipe: Any, registry: Registry
) -> None:
    planned = editor.plan(erasures["bend dog"], erasures["tilt"], scales=[1, 0.25])
    editor.attach(erasures["bend dog"])
    editor.attach(erasures["tilt"], scale=0.25)
    assert planned == editor.plan()
    assert [one.label for one in planned.erasures][-2:] == ["bend-dog", "tilt-cat-2"]


def test_scales_of_a_plan_are_one_for_each_erasure_and_sound(pipe: Any, registry: Registry, erasures: Erasures) -> None:
    editor = Editor(pipe, registry=registry)
    with pytest.raises(ValueError, match="shorter"):
        editor.plan(erasures["tilt"], erasures["bend"], scales=[1])
    with pytest.raises(efface.BadEdit, match="finite number >= 0"):
        editor.plan(erasures["tilt"], scales=[-1])


def test_another_base_is_planned_all_the_same_and_another_structure_is_not(
    registry: Registry, erasures: Erasures
) -> None:
    stranger = Editor(tiny_pipeline("sd1", seed=1), registry=registry)
    (one,) = stranger.plan(erasures["tilt"]).erasures
    assert one.other_base
    assert one.base_difference > 0.1
    with pytest.raises(WrongBase, match="another structure"):
        Editor(tiny_pipeline("sdxl"), registry=registry).plan(erasures["tilt"])


def test_nothing_more_is_planned_on_fused_weights(pipe: Any, registry: Registry, erasures: Erasures) -> None:
    with Editor(pipe, erasures["tilt"], registry=registry) as editor:
        editor.fuse()
        assert len(editor.plan().erasures) == 1
        with pytest.raises(EffaceError, match="call unfuse"):
            editor.plan(erasures["tilt dog"])


# How it reads


def test_a_plan_prints_as_a_table(editor: Editor) -> None:
    editor.disable("nudge-cat")
    editor.scale("tilt-cat", 0.25)
    assert str(editor.plan()).splitlines()[:7] == [
        "1. tilt-cat (scale 0.25): 1 text (32 modules, 6,912 weights); bypassed by image prompts",
        "2. fade-cat (scale 1): 1 step, 12 skip",
        "3. nudge-cat (off): 1 cross_attn.v, 1 weight (2 modules, 2,560 weights)",
        "4. tilt-dog (scale 1): 1 text (32 modules, 6,912 weights); bypassed by image prompts",
        "5. bend-cat (scale 1): 1 self_attn.q, 1 mid (1 module)",
        "meet at unet.text: tilt-cat, tilt-dog",
        "work per denoising call, estimated from shapes: not known on top of 6.0 million operations of the U-Net "
        "(tilt-cat 0.03%, fade-cat not known, nudge-cat 0.00%, tilt-dog 0.03%, bend-cat not known)",
    ]


def test_points_where_the_same_erasures_meet_share_a_line(pipe: Any, registry: Registry, erasures: Erasures) -> None:
    plan = Editor(pipe, registry=registry).plan(erasures["fade"], erasures["fade dog"])
    assert "meet at 13 points (unet.step and so on): fade-cat, fade-dog" in str(plan).splitlines()


def test_a_plan_of_nothing_says_so(pipe: Any, registry: Registry) -> None:
    assert str(Editor(pipe, registry=registry).plan()) == "nothing attached"


def test_a_plan_is_json(editor: Editor) -> None:
    data = json.loads(json.dumps(editor.plan().to_json()))
    assert data["meetings"] == {"unet.text": ["tilt-cat", "tilt-dog"]}
    assert data["erasures"][1]["kinds"] == {"step": 1, "skip": 12}
    assert data["erasures"][1]["points"][:2] == ["unet.step", "unet.skip.0"]
    assert data["erasures"][1]["flops"] is None
    assert data["cost"] is None
    assert data["unet_flops"] == editor.plan().unet_flops
    assert set(data["findings"][0]) == {"level", "about", "labels", "text"}
    assert set(data["erasures"][0]) == {
        "label",
        "method",
        "scale",
        "points",
        "kinds",
        "modules",
        "parameters",
        "bypassed_by",
        "base_difference",
        "other_base",
        "flops",
    }


def test_a_point_that_an_erasure_edits_twice_counts_once(pipe: Any, candidate: Callable[..., Candidate]) -> None:
    patch = Patch(pipe)
    for _ in range(2):
        patch.map("unet.text", LowRank(torch.zeros(16, 1), torch.zeros(1, 16)))
    plan = planned(pipe, [candidate(patch=patch)], frozenset(), False)
    (one,) = plan.erasures
    assert (dict(one.kinds), one.modules, dict(plan.meetings)) == ({"text": 1}, 32, {})
    assert one.flops == 2 * (2 * 16 * 32)


# The work


def counted(pipe: Any) -> int:
    """What torch counts for one call of the U-Net, on a copy without numbers."""
    config = pipe.unet.config
    with torch.device("meta"):
        bare = type(pipe.unet).from_config(config)
        given = (torch.zeros(1, 4, 8, 8), torch.zeros(1), torch.zeros(1, TOKENS, config.cross_attention_dim))
        added = {"text_embeds": torch.zeros(1, 24), "time_ids": torch.zeros(1, 6)}
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        bare(*given, added_cond_kwargs=added if config.addition_embed_type else None)
    return counter.get_total_flops()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_work_of_the_unet_is_what_torch_counts(family: str, shared: Callable[[str], Any]) -> None:
    pipe = shared(family)
    assert unet_flops(pipe.unet, TOKENS) == counted(pipe)


def test_sizes_follow_the_blocks(pipe: Any) -> None:
    at = positions(pipe.unet, TOKENS)
    name = "attentions.0.transformer_blocks.0.attn2"
    assert [at[f"{block}.{name}.to_q"] for block in ("down_blocks.0", "mid_block", "up_blocks.3")] == [64, 1, 64]
    assert at[f"down_blocks.2.{name}.to_k"] == TOKENS
    assert at["down_blocks.0.downsamplers.0.conv"] == 16
    assert at["up_blocks.0.upsamplers.0.conv"] == 4
    assert at["down_blocks.0.resnets.0.time_emb_proj"] == at["time_embedding.linear_1"] == 1


def test_a_picture_need_not_be_square(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    square = positions(pipe.unet, TOKENS)
    monkeypatch.setitem(pipe.unet.config, "sample_size", (8, 16))
    monkeypatch.setattr(type(pipe.unet.config), "sample_size", property(lambda config: config["sample_size"]), False)
    wide = positions(pipe.unet, TOKENS)
    assert wide["conv_in"] == 2 * square["conv_in"]
    assert wide["mid_block.resnets.0.conv1"] == 2 * square["mid_block.resnets.0.conv1"]


def test_layers_with_adapters_are_counted_with_them(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A LoRA of rank r turns a layer of m x d into itself and r (m + d) more."""
    from peft import LoraConfig

    own = tiny_pipeline("sd1")
    before = unet_flops(own.unet, TOKENS)
    own.unet.add_adapter(LoraConfig(r=2, target_modules=["mid_block.attentions.0.transformer_blocks.0.attn2.to_q"]))
    assert unet_flops(own.unet, TOKENS) == before + 2 * 2 * (16 + 16)


def test_maps_and_adds_cost_what_their_factors_cost(pipe: Any, candidate: Callable[..., Candidate], toys: Any) -> None:
    patch = Patch(pipe)
    patch.map("unet.text", LowRank(torch.zeros(16, 3), torch.zeros(3, 16)))
    patch.add(
        "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", LowRank(torch.zeros(8, 1), torch.zeros(1, 8))
    )
    patch.add("text_encoder.layers.0.mlp.fc2", LowRank(torch.zeros(16, 2), torch.zeros(2, 32)))
    plan = planned(pipe, [candidate(patch=patch)], frozenset(), False)
    (one,) = plan.erasures
    assert one.flops == 2 * TOKENS * 3 * 32 + 2 * 64 * 16
    assert plan.cost == one.flops / plan.unet_flops


def test_what_is_off_costs_nothing(candidate: Callable[..., Candidate], pipe: Any) -> None:
    patch = Patch(pipe)
    patch.output("unet.mid", lambda x, call: x)
    plan = planned(pipe, [candidate(patch=patch, scale=0.0)], frozenset(), False)
    assert (plan.erasures[0].flops, plan.cost) == (0, 0)


def test_a_method_may_say_what_its_tensor_edits_cost(
    candidate: Callable[..., Candidate], toys: Any, pipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {}

    def step_flops(self: Any, fitted: efface.Fitted, positions: Mapping[str, int]) -> float:
        seen.update(positions)
        return 100 * fitted.scale

    patch = Patch(pipe)
    patch.output("unet.mid", lambda x, call: x)
    patch.map("unet.text", LowRank(torch.zeros(16, 1), torch.zeros(1, 16)))
    one = candidate(patch=patch, scale=0.5)
    assert planned(pipe, [one], frozenset(), False).cost is None
    monkeypatch.setattr(toys["tilt"], "step_flops", step_flops, raising=False)
    assert planned(pipe, [one], frozenset(), False).erasures[0].flops == 50 + 2 * TOKENS * 32
    assert seen == positions(pipe.unet, TOKENS)


def test_what_a_method_offers_besides_has_its_arguments(toys: Any) -> None:
    for verb, wanted in (("step_flops", "fitted, positions"), ("compose", "fits, request")):
        wrong = type("Wrong", (toys["tilt"],), {verb: lambda self: None})
        with pytest.raises(efface.PluginError, match=rf"it must take {verb}\(self, {wanted}\)"):
            check_method(wrong)


def test_a_declaration_of_what_goes_around_is_shown(candidate: Callable[..., Candidate], pipe: Any, toys: Any) -> None:
    method = type("Other", (toys["tilt"],), {"covers": Covers(bypassed_by=("fog", "night"))})()
    plan = planned(pipe, [candidate(method=method)], frozenset(), False)
    assert str(plan).splitlines()[0].endswith("; bypassed by fog, night")
