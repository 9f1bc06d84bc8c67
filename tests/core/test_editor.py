"""Erasures go onto a pipeline, act as the list says, and come off without a trace."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from peft import LoraConfig
from torch import Tensor

from efface import (
    AlreadyEdited,
    BadEdit,
    EditLost,
    Editor,
    Erasure,
    Registry,
    UnknownMethod,
    UnknownPoint,
    WrongBase,
)
from efface.errors import EffaceError
from efface.testing.pipelines import tiny_pipeline
from efface_hooks import Wiring

ALL = ("tilt", "nudge", "bend", "fade", "team", "word")

Erasures = Mapping[str, Erasure]
Latents = Callable[..., Tensor]


@pytest.fixture
def edit(pipe: Any, registry: Registry) -> Any:
    """Makes editors on the shared pipeline and closes them after the test."""
    made: list[Editor] = []

    def make(*erasures: Erasure, **options: Any) -> Editor:
        editor = Editor(options.pop("pipe", pipe), *erasures, registry=registry, **options)
        made.append(editor)
        return editor

    yield make
    for editor in made:
        editor.close()


def labels(editor: Editor) -> list[str]:
    return [entry.label for entry in editor.entries]


# What acts


@pytest.mark.parametrize("name", ALL)
def test_an_attached_erasure_changes_pictures_and_a_detached_one_leaves_no_trace(
    name: str, pipe: Any, edit: Any, erasures: Erasures, state: Any, latents: Latents
) -> None:
    base, before = latents(pipe), state(pipe)
    editor = edit(erasures[name])
    assert not torch.equal(latents(pipe), base)
    assert state(pipe).weights == before.weights
    assert state(pipe).keys == before.keys
    editor.detach(name + "-cat")
    assert state(pipe) == before
    assert torch.equal(latents(pipe), base)


def test_every_erasure_of_a_stack_acts(pipe: Any, edit: Any, erasures: Erasures, latents: Latents) -> None:
    editor = edit(*(erasures[name] for name in ALL))
    whole = latents(pipe)
    for label in labels(editor):
        editor.disable(label)
        assert not torch.equal(latents(pipe), whole), f"{label} did nothing"
        editor.enable(label)
    assert torch.equal(latents(pipe), whole)


@pytest.mark.parametrize(
    ("first", "second"), [("tilt", "tilt dog"), ("bend", "fade"), ("word", "nudge"), ("team", "tilt")]
)
def test_attaching_two_and_detaching_the_first_equals_attaching_the_second(
    first: str, second: str, pipe: Any, edit: Any, erasures: Erasures, hooks: Any, latents: Latents
) -> None:
    with edit(erasures[second]):
        wanted, wired = latents(pipe), hooks(pipe)
    editor = edit(erasures[first])
    editor.attach(erasures[second])
    editor.detach(erasures[first])
    assert torch.equal(latents(pipe), wanted)
    assert hooks(pipe) == wired


def test_maps_and_adds_commute_bit_for_bit(pipe: Any, edit: Any, erasures: Erasures, latents: Latents) -> None:
    names = ("tilt", "nudge", "word", "tilt dog", "nudge dog", "word dog")
    with edit(*(erasures[name] for name in names)):
        forwards = latents(pipe)
    with edit(*(erasures[name] for name in reversed(names))):
        assert torch.equal(latents(pipe), forwards)


def test_tensor_edits_run_in_list_order(pipe: Any, edit: Any, erasures: Erasures, monkeypatch: Any, toys: Any) -> None:
    ran: list[str] = []

    def apply(self: Any, patch: Any, fits: Any) -> None:
        for fitted in fits:
            patch.output("unet.mid", noting(fitted.request.concepts[0].text))

    def noting(concept: str) -> Any:
        return lambda x, call: ran.append(concept) or x

    monkeypatch.setattr(toys["bend"], "apply", apply)
    editor = edit(erasures["bend"], erasures["bend dog"])
    sample, text = torch.zeros(1, 4, 8, 8), torch.zeros(1, 16, 16)
    pipe.unet(sample, 1, text)
    editor.move("bend-dog", 0)
    pipe.unet(sample, 1, text)
    assert ran == ["cat", "dog", "dog", "cat"]


# Coming off again


def test_a_context_takes_everything_off_on_the_way_out(
    pipe: Any, registry: Registry, erasures: Erasures, state: Any
) -> None:
    before = state(pipe)
    with Editor(pipe, *(erasures[name] for name in ALL), registry=registry) as editor:
        assert state(pipe).hooks != before.hooks
    assert state(pipe) == before
    assert editor.entries == ()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_context_left_by_an_exception_takes_everything_off_and_lets_it_pass(
    error: type[BaseException], pipe: Any, registry: Registry, erasures: Erasures, state: Any
) -> None:
    before = state(pipe)
    with pytest.raises(error), Editor(pipe, erasures["tilt"], erasures["fade"], registry=registry):
        raise error
    assert state(pipe) == before


def test_an_exception_within_a_pass_leaves_a_pipeline_that_still_works(
    pipe: Any, edit: Any, erasures: Erasures, latents: Latents, monkeypatch: Any
) -> None:
    with edit(erasures["fade"], erasures["word"]):
        wanted = latents(pipe)

        def interrupted(*args: Any, **kwargs: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(pipe.unet.conv_out, "forward", interrupted)
            with pytest.raises(KeyboardInterrupt):
                latents(pipe)
        assert torch.equal(latents(pipe), wanted)


def test_detach_without_names_takes_all_off(pipe: Any, edit: Any, erasures: Erasures, state: Any) -> None:
    before = state(pipe)
    editor = edit(*(erasures[name] for name in ALL))
    editor.detach()
    assert state(pipe) == before
    assert editor.entries == ()


def test_closing_twice_does_nothing(pipe: Any, edit: Any, erasures: Erasures, state: Any) -> None:
    before = state(pipe)
    editor = edit(erasures["tilt"])
    editor.close()
    editor.close()
    assert state(pipe) == before


def test_a_closed_editor_can_be_used_again(pipe: Any, edit: Any, erasures: Erasures, latents: Latents) -> None:
    editor = edit(erasures["tilt"])
    wanted = latents(pipe)
    editor.close()
    editor.attach(erasures["tilt"])
    assert torch.equal(latents(pipe), wanted)


def test_hooks_of_others_stay_where_they_are(pipe: Any, edit: Any, erasures: Erasures, latents: Latents) -> None:
    seen: list[int] = []
    theirs = pipe.unet.mid_block.register_forward_hook(lambda module, args, output: seen.append(1))
    try:
        editor = edit(erasures["bend"], erasures["team"])
        editor.detach()
        latents(pipe, steps=1)
        assert seen == [1]
    finally:
        theirs.remove()


# Names


def test_labels_say_method_and_concept_and_are_numbered_when_taken(edit: Any, erasures: Erasures) -> None:
    editor = edit(erasures["tilt"], erasures["tilt"], erasures["tilt dog"])
    assert labels(editor) == ["tilt-cat", "tilt-cat-2", "tilt-dog"]
    assert editor.attach(erasures["tilt"]) == "tilt-cat-3"
    assert editor.attach(erasures["tilt"], label="mine") == "mine"
    editor.detach("tilt-cat")
    assert editor.attach(erasures["tilt"]) == "tilt-cat"
    assert labels(editor) == ["tilt-cat-2", "tilt-dog", "tilt-cat-3", "mine", "tilt-cat"]


def test_a_label_that_is_taken_is_refused(edit: Any, erasures: Erasures) -> None:
    editor = edit(erasures["tilt"], erasures["fade"])
    with pytest.raises(EffaceError, match=r"'fade-cat' is taken; labels: fade-cat, tilt-cat"):
        editor.attach(erasures["bend"], label="fade-cat")
    assert labels(editor) == ["tilt-cat", "fade-cat"]


def test_an_unknown_label_is_refused_with_the_ones_there_are(edit: Any, erasures: Erasures) -> None:
    editor = edit(erasures["tilt"], erasures["fade"])
    for act in (
        lambda: editor.detach("tilt-cta"),
        lambda: editor.enable("tilt-cta"),
        lambda: editor.disable("fade-cat", "tilt-cta"),
        lambda: editor.scale("tilt-cta", 1.0),
        lambda: editor.move("tilt-cta", 0),
    ):
        with pytest.raises(EffaceError, match=r"No erasure 'tilt-cta'; attached: fade-cat, tilt-cat\. Did you mean"):
            act()
    assert all(entry.enabled for entry in editor.entries)


def test_an_erasure_names_itself_even_when_read_from_its_file(
    edit: Any, erasures: Erasures, tmp_path: Any, pipe: Any, state: Any
) -> None:
    before = state(pipe)
    editor = edit(erasures["tilt"], erasures["fade"])
    erasures["tilt"].save(tmp_path / "tilt.safetensors")
    editor.detach(Erasure.load(tmp_path / "tilt.safetensors"))
    assert labels(editor) == ["fade-cat"]
    with pytest.raises(EffaceError, match=r"<Erasure of 'cat' by tilt, .*attached: fade-cat"):
        editor.detach(erasures["tilt"])
    editor.detach(erasures["fade"])
    assert state(pipe) == before


def test_an_erasure_from_its_file_acts_as_the_one_in_memory(
    pipe: Any, edit: Any, erasures: Erasures, tmp_path: Any, latents: Latents
) -> None:
    names = ("tilt", "nudge", "bend", "fade", "team", "word")
    with edit(*(erasures[name] for name in names)):
        wanted = latents(pipe)
    for name in names:
        erasures[name].save(tmp_path / name)
    with edit(*(Erasure.load(tmp_path / name) for name in names)):
        assert torch.equal(latents(pipe), wanted)


# Strength and order


@pytest.mark.parametrize("name", ALL)
def test_scale_zero_is_disabled_is_absent_bit_for_bit(
    name: str, pipe: Any, edit: Any, erasures: Erasures, latents: Latents, hooks: Any, state: Any
) -> None:
    other = erasures["tilt dog"]
    with edit(other):
        wanted, wired = latents(pipe), hooks(pipe)
    editor = edit(erasures[name], other)
    editor.scale(name + "-cat", 0)
    assert torch.equal(latents(pipe), wanted)
    assert hooks(pipe) == wired
    editor.scale(name + "-cat", 1)
    editor.disable(name + "-cat")
    assert torch.equal(latents(pipe), wanted)
    assert hooks(pipe) == wired


def test_switching_off_everything_leaves_no_trace(pipe: Any, edit: Any, erasures: Erasures, state: Any) -> None:
    before = state(pipe)
    editor = edit(erasures["tilt"], erasures["team"])
    wired = state(pipe).hooks
    editor.disable()
    assert state(pipe) == before
    assert len(editor.entries) == 2
    editor.enable()
    assert state(pipe).hooks == wired


def test_a_scaled_map_shows_the_layers_x_plus_s_times_e_x(pipe: Any, edit: Any, erasures: Erasures) -> None:
    editor = edit(erasures["tilt"], erasures["tilt dog"])
    editor.scale("tilt-cat", 0.25)
    editor.scale("tilt-dog", 3)
    text = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(0))
    change = sum(
        scale * erasures[name].tensors["up"].double() @ erasures[name].tensors["down"].double()
        for name, scale in (("tilt", 0.25), ("tilt dog", 3.0))
    )
    seen = input_of(pipe.unet.mid_block.attentions[0].transformer_blocks[0].attn2.to_k, pipe, text)
    wanted = text.double() + text.double() @ change.T
    torch.testing.assert_close(seen.double(), wanted, rtol=1e-5, atol=1e-5)


def test_a_scaled_tensor_edit_goes_that_share_of_the_way(pipe: Any, edit: Any, erasures: Erasures) -> None:
    text = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(0))
    first = pipe.unet.up_blocks[0]
    plain = input_of(first, pipe, text)
    edit(erasures["bend"]).scale("bend-cat", 0.5)
    query = pipe.unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_q
    halved = input_of(query, pipe, text)
    edit_of_query = erasures["bend"].tensors["query"]
    Editor.of(pipe).close()  # type: ignore[union-attr]
    unedited = input_of(query, pipe, text)
    torch.testing.assert_close(halved, unedited + 0.5 * edit_of_query, rtol=1e-5, atol=1e-5)
    assert torch.equal(input_of(first, pipe, text), plain)


def test_scales_that_are_no_finite_number_from_zero_up_are_refused(edit: Any, erasures: Erasures) -> None:
    editor = edit(erasures["tilt"])
    for scale in (-0.1, float("nan"), float("inf"), "1", True, None):
        with pytest.raises(BadEdit, match="finite number >= 0"):
            editor.scale("tilt-cat", scale)
        with pytest.raises(BadEdit, match="finite number >= 0"):
            editor.attach(erasures["fade"], scale=scale)
    assert [(entry.label, entry.scale) for entry in editor.entries] == [("tilt-cat", 1.0)]


def test_attach_takes_scale_and_switch(pipe: Any, edit: Any, erasures: Erasures, latents: Latents) -> None:
    editor = edit(erasures["tilt"], erasures["fade"])
    editor.scale("tilt-cat", 0.5)
    editor.disable("fade-cat")
    wanted = latents(pipe)
    editor.close()
    editor.attach(erasures["tilt"], scale=0.5)
    editor.attach(erasures["fade"], enabled=False)
    assert torch.equal(latents(pipe), wanted)
    assert [(entry.label, entry.scale, entry.enabled) for entry in editor.entries] == [
        ("tilt-cat", 0.5, True),
        ("fade-cat", 1.0, False),
    ]


def test_move_gives_the_order_asked_for(pipe: Any, edit: Any, erasures: Erasures, latents: Latents) -> None:
    with edit(erasures["fade"], erasures["tilt"], erasures["bend"]):
        wanted = latents(pipe)
    editor = edit(erasures["tilt"], erasures["bend"], erasures["fade"])
    editor.move("fade-cat", 0)
    assert labels(editor) == ["fade-cat", "tilt-cat", "bend-cat"]
    assert torch.equal(latents(pipe), wanted)
    editor.move("fade-cat", 2)
    assert labels(editor) == ["tilt-cat", "bend-cat", "fade-cat"]


# Methods that stack


def test_a_stacking_method_is_called_once_with_all_that_act_at_the_place_of_the_first(
    pipe: Any, edit: Any, erasures: Erasures, registry: Registry, toys: Any, monkeypatch: Any
) -> None:
    calls: list[tuple[str, list[tuple[str, float]]]] = []

    def noting(method: Any) -> None:
        apply = method.apply

        def noted(self: Any, patch: Any, fits: Any) -> None:
            calls.append((self.name, [(one.request.concepts[0].text, one.scale) for one in fits]))
            apply(self, patch, fits)

        monkeypatch.setattr(method, "apply", noted)

    editor = edit(erasures["tilt"], erasures["team"], erasures["fade"], erasures["team dog"])
    editor.scale("team-dog", 0.5)
    noting(toys["team"])
    noting(toys["tilt"])
    noting(toys["fade"])
    editor.enable()
    assert calls == [("tilt", [("cat", 1.0)]), ("team", [("cat", 1.0), ("dog", 0.5)]), ("fade", [("cat", 1.0)])]
    calls.clear()
    editor.disable("team-cat")
    assert calls == [("tilt", [("cat", 1.0)]), ("fade", [("cat", 1.0)]), ("team", [("dog", 0.5)])]


def test_a_stacking_method_adds_up_its_scaled_fits(pipe: Any, edit: Any, erasures: Erasures) -> None:
    out = pipe.unet.mid_block.attentions[0].transformer_blocks[0].attn2.to_out[0]
    text = torch.randn(1, 16, 16, generator=torch.Generator().manual_seed(0))
    plain = output_of(out, pipe, text)
    editor = edit(erasures["team"], erasures["team dog"])
    editor.scale("team-cat", 2)
    editor.scale("team-dog", 0.5)
    both = 2 * erasures["team"].tensors["direction"] + 0.5 * erasures["team dog"].tensors["direction"]
    torch.testing.assert_close(output_of(out, pipe, text), plain + both, rtol=1e-5, atol=1e-5)


def test_stacking_erasures_of_other_settings_go_on_by_themselves(
    pipe: Any, edit: Any, erasures: Erasures, toys: Any, monkeypatch: Any
) -> None:
    dog = erasures["team dog"]
    doubled = Erasure(dataclasses.replace(dog.header, settings={"size": 2.0}), dog.tensors)
    calls: list[tuple[float, int]] = []
    monkeypatch.setattr(toys["team"], "apply", lambda self, patch, fits: calls.append((self.size, len(fits))))
    edit(erasures["team"], doubled, erasures["team dog"])
    assert calls == [(1.0, 2), (2.0, 1)]


# One editor per U-Net


def test_the_editor_of_a_pipeline_can_be_found(pipe: Any, edit: Any, erasures: Erasures) -> None:
    assert Editor.of(pipe) is None
    editor = edit(erasures["tilt"])
    assert Editor.of(pipe) is editor
    editor.close()
    assert Editor.of(pipe) is None


def test_a_wiring_of_somebody_else_is_no_editor(pipe: Any) -> None:
    from efface_hooks import Patch

    wiring = Wiring(pipe)
    wiring.set([Patch(pipe)])
    assert Editor.of(pipe) is None
    wiring.clear()


def test_a_second_editor_is_refused_and_the_first_one_acts_on(
    pipe: Any, edit: Any, registry: Registry, erasures: Erasures, latents: Latents, hooks: Any
) -> None:
    first = edit(erasures["tilt"])
    wanted, wired = latents(pipe), hooks(pipe)
    with pytest.raises(AlreadyEdited, match=r"Editor\.of\(pipe\)"):
        Editor(pipe, erasures["fade"], registry=registry)
    assert Editor.of(pipe) is first
    assert hooks(pipe) == wired
    assert torch.equal(latents(pipe), wanted)


def test_pipelines_that_share_a_unet_share_its_editor(
    pipe: Any, edit: Any, registry: Registry, erasures: Erasures, latents: Latents, state: Any
) -> None:
    from diffusers import StableDiffusionPipeline

    twin = StableDiffusionPipeline(**pipe.components, requires_safety_checker=False)
    twin.set_progress_bar_config(disable=True)
    base = latents(pipe)
    editor = edit(erasures["tilt"], erasures["word"])
    assert Editor.of(twin) is editor
    assert torch.equal(latents(twin), latents(pipe))
    assert not torch.equal(latents(twin), base)
    with pytest.raises(AlreadyEdited):
        Editor(twin, erasures["fade"], registry=registry)
    editor.close()
    assert torch.equal(latents(twin), base)


# What is refused leaves things as they were


@pytest.fixture
def standing(pipe: Any, edit: Any, erasures: Erasures, latents: Latents, hooks: Any) -> Any:
    """An editor with a list, and a check that everything is as it was."""
    editor = edit(erasures["tilt"], erasures["fade"], erasures["word"])
    wanted, wired, listed = latents(pipe), hooks(pipe), editor.entries

    def unchanged() -> None:
        assert editor.entries == listed
        assert hooks(pipe) == wired
        assert editor.verify() == []
        assert torch.equal(latents(pipe), wanted)

    return SimpleNamespace(editor=editor, unchanged=unchanged)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_apply_that_fails_midway_changes_nothing(
    error: type[BaseException], standing: Any, erasures: Erasures, toys: Any, monkeypatch: Any
) -> None:
    def failing(self: Any, patch: Any, fits: Any) -> None:
        patch.output("unet.mid", lambda x, call: x + 1)
        raise error("half-way")

    with monkeypatch.context() as patched:
        patched.setattr(toys["bend"], "apply", failing)
        with pytest.raises(error, match="half-way"):
            standing.editor.attach(erasures["bend"])
    standing.unchanged()


def test_an_apply_that_breaks_later_lets_no_change_of_the_list_happen(
    standing: Any, erasures: Erasures, toys: Any, monkeypatch: Any
) -> None:
    def failing(self: Any, patch: Any, fits: Any) -> None:
        raise RuntimeError("cannot")

    editor = standing.editor
    with monkeypatch.context() as patched:
        patched.setattr(toys["fade"], "apply", failing)
        for act in (
            lambda: editor.detach("tilt-cat"),
            lambda: editor.disable("word-cat"),
            lambda: editor.scale("tilt-cat", 2),
            lambda: editor.move("tilt-cat", 2),
            editor.reattach,
            lambda: editor.attach(erasures["bend"]),
        ):
            with pytest.raises(RuntimeError, match="cannot"):
                act()
    standing.unchanged()


def test_an_edit_that_its_point_cannot_take_changes_nothing(
    standing: Any, erasures: Erasures, toys: Any, monkeypatch: Any
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(toys["bend"], "apply", lambda self, patch, fits: patch.step("no callable"))
        with pytest.raises(BadEdit, match=r"step at unet\.step takes a callable, not str"):
            standing.editor.attach(erasures["bend"])
    standing.unchanged()


def test_an_erasure_of_another_base_changes_nothing(
    standing: Any, registry: Registry, pipe: Any, erasures: Erasures
) -> None:
    from efface import erase

    foreign = erase(tiny_pipeline("sd1", seed=1), "cat", anchor="tree", method="tilt", registry=registry)
    with pytest.raises(WrongBase, match="other weights"):
        standing.editor.attach(foreign)
    standing.unchanged()


def test_an_erasure_at_an_unknown_point_changes_nothing(standing: Any, erasures: Erasures) -> None:
    tilt = erasures["tilt"]
    lost = Erasure(dataclasses.replace(tilt.header, points=("unet.txt",)), tilt.tensors)
    with pytest.raises(UnknownPoint, match=r"No hook point 'unet\.txt'.*Did you mean 'unet\.text'"):
        standing.editor.attach(lost)
    standing.unchanged()


def test_an_erasure_of_a_method_that_is_not_installed_changes_nothing(standing: Any, erasures: Erasures) -> None:
    tilt = erasures["tilt"]
    foreign = Erasure(dataclasses.replace(tilt.header, method="tild"), tilt.tensors)
    with pytest.raises(UnknownMethod, match=r"No method 'tild'; installed: bend, fade, .*Did you mean 'tilt'"):
        standing.editor.attach(foreign)
    standing.unchanged()


def test_settings_that_the_method_no_longer_has_change_nothing(standing: Any, erasures: Erasures) -> None:
    tilt = erasures["tilt"]
    old = Erasure(dataclasses.replace(tilt.header, settings={"angle": 3}), tilt.tensors)
    with pytest.raises(EffaceError, match=r"tilt: No setting 'angle'; it has: strength"):
        standing.editor.attach(old)
    standing.unchanged()


def test_an_editor_that_cannot_be_made_leaves_a_bare_pipeline(
    pipe: Any, registry: Registry, erasures: Erasures, toys: Any, monkeypatch: Any, state: Any
) -> None:
    before = state(pipe)

    def failing(self: Any, patch: Any, fits: Any) -> None:
        raise RuntimeError("cannot")

    monkeypatch.setattr(toys["bend"], "apply", failing)
    with pytest.raises(RuntimeError, match="cannot"):
        Editor(pipe, erasures["tilt"], erasures["bend"], registry=registry)
    assert state(pipe) == before
    assert Editor.of(pipe) is None


# What changes under an edit


def test_verify_names_the_edit_whose_hook_was_removed(
    pipe: Any, edit: Any, erasures: Erasures, latents: Latents, toys: Any
) -> None:
    editor = edit(erasures["bend"], erasures["fade"])
    wanted = latents(pipe)
    assert editor.verify() == []
    pipe.unet.get_submodule(toys["bend"].QUERY.removeprefix("unet."))._forward_pre_hooks.clear()
    (lost,) = editor.verify()
    assert isinstance(lost, EditLost)
    assert lost.point == toys["bend"].QUERY
    assert "removed" in lost.cause
    assert "reattach" in lost.remedy
    with pytest.raises(EditLost, match=r"attn1\.to_q"):
        latents(pipe)
    editor.reattach()
    assert editor.verify() == []
    assert torch.equal(latents(pipe), wanted)


def test_a_removed_guard_is_found_too(pipe: Any, edit: Any, erasures: Erasures) -> None:
    editor = edit(erasures["tilt"])
    pipe.unet._forward_pre_hooks.clear()
    pipe.unet._forward_pre_hooks_with_kwargs.clear()
    assert "unet" in [lost.point for lost in editor.verify()]


def test_an_erasure_follows_its_layer_into_a_lora(registry: Registry, erasures: Erasures, latents: Latents) -> None:
    pipe = tiny_pipeline("sd1")
    lora = LoraConfig(r=2, target_modules=["to_v"], init_lora_weights="gaussian")
    with Editor(pipe, erasures["nudge"], registry=registry) as editor:
        pipe.unet.add_adapter(lora)
        randomise_lora(pipe.unet)
        assert editor.verify() == []
        edited = latents(pipe)
        editor.reattach()
        assert torch.equal(latents(pipe), edited)
        editor.disable()
        assert not torch.equal(edited, latents(pipe))
    assert not torch.equal(edited, latents(pipe))


def test_attaching_before_or_after_the_lora_makes_no_difference(
    registry: Registry, erasures: Erasures, latents: Latents
) -> None:
    pipe = tiny_pipeline("sd1")
    with Editor(pipe, erasures["nudge"], erasures["tilt"], registry=registry) as editor:
        pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_v", "to_k"]))
        randomise_lora(pipe.unet)
        editor.reattach()
        before = latents(pipe)
    with Editor(pipe, erasures["nudge"], erasures["tilt"], registry=registry):
        assert torch.equal(latents(pipe), before)


# History does not matter


def test_the_pipeline_depends_on_the_final_list_alone(
    pipe: Any, registry: Registry, erasures: Erasures, hooks: Any, latents: Latents, state: Any
) -> None:
    stock = ["tilt", "bend", "fade", "team", "team dog", "word", "nudge"]

    class History(RuleBasedStateMachine):
        @initialize()
        def open(self) -> None:
            self.editor = Editor(pipe, registry=registry)

        @rule(name=st.sampled_from(stock), scale=st.sampled_from([0.0, 0.5, 1.0]), enabled=st.booleans())
        def attach(self, name: str, scale: float, enabled: bool) -> None:
            self.editor.attach(erasures[name], scale=scale, enabled=enabled)

        @precondition(lambda self: self.editor.entries)
        @rule(data=st.data())
        def detach(self, data: Any) -> None:
            self.editor.detach(self.one(data))

        @precondition(lambda self: self.editor.entries)
        @rule(data=st.data(), on=st.booleans())
        def switch(self, data: Any, on: bool) -> None:
            (self.editor.enable if on else self.editor.disable)(self.one(data))

        @precondition(lambda self: self.editor.entries)
        @rule(data=st.data(), scale=st.sampled_from([0.0, 0.5, 1.0, 2.0]))
        def scale(self, data: Any, scale: float) -> None:
            self.editor.scale(self.one(data), scale)

        @precondition(lambda self: self.editor.entries)
        @rule(data=st.data(), place=st.integers(0, 3))
        def move(self, data: Any, place: int) -> None:
            self.editor.move(self.one(data), place)

        @precondition(lambda self: self.editor.entries)
        @rule()
        def reattach(self) -> None:
            self.editor.reattach()

        def one(self, data: Any) -> str:
            label: str = data.draw(st.sampled_from(labels(self.editor)))
            return label

        def teardown(self) -> None:
            with self.editor as editor:
                listed, wired, made = editor.entries, hooks(pipe), latents(pipe, "a cat", steps=1)
            with Editor(pipe, registry=registry) as fresh:
                for entry in listed:
                    fresh.attach(entry.erasure, scale=entry.scale, enabled=entry.enabled)
                assert hooks(pipe) == wired
                assert torch.equal(latents(pipe, "a cat", steps=1), made)
            assert hooks(pipe).total() == 0

    run_state_machine_as_test(
        History,
        settings=settings(
            max_examples=8,
            stateful_step_count=7,
            derandomize=True,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def input_of(module: Any, pipe: Any, text: Tensor) -> Tensor:
    """The first argument that a module receives, after all edits, in one pass of the U-Net."""
    seen: list[Tensor] = []
    hook = module.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
    )
    run_unet(pipe, text, hook)
    return seen[0].clone()


def output_of(module: Any, pipe: Any, text: Tensor) -> Tensor:
    seen: list[Tensor] = []
    run_unet(pipe, text, module.register_forward_hook(lambda module, args, output: seen.append(output)))
    return seen[0].clone()


def run_unet(pipe: Any, text: Tensor, hook: Any) -> None:
    sample = torch.randn(len(text), 4, 8, 8, generator=torch.Generator().manual_seed(1))
    try:
        with torch.no_grad():
            pipe.unet(sample, 7, text)
    finally:
        hook.remove()


def randomise_lora(unet: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in unet.named_parameters():
            if "lora_" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator))
