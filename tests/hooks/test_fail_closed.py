"""An edit that something else has switched off is an error in the next generation, never a picture."""

from __future__ import annotations

import copy
from contextlib import suppress

import pytest
import torch
from torch.nn import functional

from efface_hooks import BadEdit, BypassedError, EditLost, Patch, Wiring, find, points

CAT = "a cat"


def double(x, call):
    return 2 * x


def key_map(pipe, do, seed=0, index=0):
    point = do.one(pipe, "cross_attn.k", index)
    return do.patch(pipe, "map", point, do.square(point, seed, dtype=torch.float32))


def assert_lost(lost, point, cause, remedy):
    """An error that says what is off, why, and what to do."""
    assert lost.point == point
    assert cause in lost.cause
    assert remedy in lost.remedy
    assert point in str(lost)
    assert cause in str(lost)
    assert remedy in str(lost)


def assert_refused(pipe, do, wiring, point, cause, remedy):
    """`verify` says at once what the next generation, and the one after it, raise."""
    assert_lost(wiring.verify()[0], point, cause, remedy)
    for _ in range(2):
        with pytest.raises(EditLost) as lost:
            do.picture(pipe, steps=1)
        assert_lost(lost.value, point, cause, remedy)


def test_with_all_in_place_there_is_nothing_to_report(pipe, do):
    with do.attached(pipe, *do.every_verb(pipe)) as wiring:
        assert wiring.verify() == []
        do.picture(pipe, steps=1)
        assert wiring.verify() == []
    assert wiring.verify() == []


# torch.compile: hooks on modules inside a compiled model, added after its first call, are ignored by torch


@pytest.fixture
def compiled():
    """Two ways to compile a pipeline's U-Net. All compiled code is forgotten before and after."""
    torch.compiler.reset()

    def in_place(pipe):
        pipe.unet.compile(backend="eager")

    def wrapped(pipe):
        pipe.unet = torch.compile(pipe.unet, backend="eager")

    yield {"in place": in_place, "wrapped": wrapped}
    torch.compiler.reset()


WAYS = pytest.mark.parametrize("way", ["in place", "wrapped"])


@WAYS
def test_edits_attached_after_the_first_compiled_call_are_missed(slim, do, compiled, way):
    compiled[way](slim)
    do.picture(slim, steps=1)
    patch = key_map(slim, do)
    with do.attached(slim, patch) as wiring:
        assert Wiring.of(slim) is wiring
        for _ in range(2):
            with pytest.raises(EditLost) as lost:
                do.picture(slim, steps=1)
            assert_lost(lost.value, patch.edits[0].point.name, "torch.compile", "torch.compiler.reset()")


@WAYS
def test_edits_attached_before_compiling_act_and_are_guarded(slim, do, compiled, way):
    plain, key = do.picture(slim), do.one(slim, "cross_attn.k")
    with do.attached(slim, *(do.every_verb(slim) if way == "in place" else [key_map(slim, do)])) as wiring:
        edited = do.picture(slim)
        compiled[way](slim)
        assert torch.equal(do.picture(slim), edited)
        assert torch.equal(do.picture(slim), edited)
        do.at(slim, key)._forward_pre_hooks.clear()
        assert_refused(slim, do, wiring, key.name, "hook was removed", "editor.reattach()")
    assert torch.equal(do.picture(slim), plain)


def test_whatever_is_attached_to_a_compiled_model_acts_or_raises(slim, do, compiled):
    key, value = do.one(slim, "cross_attn.k"), do.one(slim, "cross_attn.v")
    with_output = key_map(slim, do)
    with_output.output(key, double)
    lists = {
        "another matrix": [key_map(slim, do, seed=1)],
        "the layer's output too": [with_output],
        "another layer": [do.patch(slim, "output", value, double)],
        "text": [do.patch(slim, "output", "unet.text", double)],
    }
    expected, painted = {}, {}
    for name, patches in lists.items():
        with do.attached(slim, *patches):
            expected[name] = do.picture(slim, steps=1)
    with do.attached(slim, key_map(slim, do)) as wiring:
        slim.unet.compile(backend="eager")
        do.picture(slim, steps=1)
        for name, patches in lists.items():
            wiring.set(patches)
            with suppress(EditLost):
                painted[name] = do.picture(slim, steps=1)
        assert {"another matrix", "text"} <= painted.keys()
        assert all(torch.equal(painted[name], expected[name]) for name in painted)
        torch.compiler.reset()  # the remedy
        wiring.set(lists["the layer's output too"])
        assert torch.equal(do.picture(slim, steps=1), expected["the layer's output too"])


def test_a_text_encoder_compiled_before_attaching_is_noticed(slim, do, compiled):
    point = find(slim, "text_encoder.layers.1.mlp.fc2")
    slim.text_encoder.compile(backend="eager")
    do.picture(slim)
    with do.attached(slim, do.patch(slim, "output", point, double)):
        with pytest.raises(EditLost) as lost:
            do.picture(slim)
        assert_lost(lost.value, point.name, "torch.compile", "torch.compiler.reset()")


# Modules that were replaced


def test_a_replaced_layer_is_noticed(slim, do):
    patch = key_map(slim, do)
    attention = slim.unet.get_submodule(patch.edits[0].point.path.removesuffix(".to_k"))
    with do.attached(slim, patch) as wiring:
        edited = do.picture(slim)
        attention.to_k = copy.deepcopy(attention.to_k)  # hooks and all
        name = patch.edits[0].point.name
        assert_refused(slim, do, wiring, name, "replaced by another module", "editor.reattach()")
        attention.to_k = torch.nn.Linear(16, 8, bias=False)
        assert_refused(slim, do, wiring, name, "replaced by another module", "editor.reattach()")
        attention.to_k = next(socket.place.module for socket in wiring.plan.sockets)
        assert torch.equal(do.picture(slim), edited)


@pytest.mark.parametrize("ancestor", ["down_blocks.0", "down_blocks.0.attentions.0.transformer_blocks.0", "mid_block"])
def test_a_replaced_ancestor_is_noticed(slim, do, ancestor):
    point = next(point for point in points(slim, "cross_attn.v") if point.path.startswith(ancestor))
    with do.attached(slim, do.patch(slim, "map", point, do.square(point))) as wiring:
        slim.unet.set_submodule(ancestor, copy.deepcopy(slim.unet.get_submodule(ancestor)))
        assert_refused(slim, do, wiring, point.name, "replaced by another module", "editor.reattach()")


def test_a_replaced_up_block_is_noticed(slim, do):
    patch = do.patch(slim, "output", "unet.skip.1", double)
    patch.output("unet.mid", double)
    with do.attached(slim, patch) as wiring:
        slim.unet.up_blocks[0] = copy.deepcopy(slim.unet.up_blocks[0])
        assert_refused(slim, do, wiring, "unet.mid, unet.skip.1", "replaced by another module", "editor.reattach()")


def test_a_layer_that_is_gone_is_noticed(slim, do):
    patch = key_map(slim, do)
    with do.attached(slim, patch) as wiring:
        slim.unet.down_blocks[0].attentions[0] = torch.nn.Identity()
        assert_refused(slim, do, wiring, patch.edits[0].point.name, "its module is gone", "editor.reattach()")


def test_a_replaced_text_encoder_is_noticed(slim, fresh_slim, do):
    point = find(slim, "text_encoder.layers.0.mlp.fc2")
    with do.attached(slim, do.patch(slim, "output", point, double)) as wiring:
        slim.text_encoder = fresh_slim().text_encoder
        assert_lost(wiring.verify()[0], point.name, "replaced by another module", "editor.reattach()")
        with pytest.raises(EditLost, match="replaced by another module"):
            do.picture(slim)


def test_a_replaced_u_net_is_noticed(slim, fresh_slim, do):
    with do.attached(slim, *do.every_verb(slim)) as wiring:
        edited, original = do.picture(slim, steps=1), slim.unet
        slim.unet = fresh_slim().unet
        assert_refused(slim, do, wiring, "unet", "pipe.unet was replaced", "new Editor")
        slim.unet = original
        assert wiring.verify() == []
        assert torch.equal(do.picture(slim, steps=1), edited)


def test_a_processor_that_goes_round_a_layer_is_noticed(slim, do):
    class Shortcut:
        """Reads the weight of `to_v` and never calls the layer."""

        def __call__(self, attn, hidden_states, encoder_hidden_states=None, **rest):
            text = hidden_states if encoder_hidden_states is None else encoder_hidden_states
            return attn.to_out[0](attn.to_q(hidden_states)) + functional.linear(text, attn.to_v.weight).mean(1, True)

    value, out = do.one(slim, "cross_attn.v"), do.one(slim, "cross_attn.out")
    slim.unet.set_attn_processor(Shortcut())
    with do.attached(slim, do.patch(slim, "output", out, double)):
        do.picture(slim)
    for verb in ("input", "output"):
        with do.attached(slim, do.patch(slim, verb, value, double)):
            for _ in range(2):
                with pytest.raises(EditLost) as lost:
                    do.picture(slim)
                assert_lost(lost.value, value.name, "hook did not run in this pass of unet", "Attach before compiling")


# Hooks that somebody removed


@pytest.mark.parametrize("table", ["_forward_pre_hooks", "_forward_hooks"])
def test_a_hook_removed_from_a_layer_is_noticed(slim, do, table):
    point = do.one(slim, "cross_attn.k")
    patch = Patch(slim)
    patch.map(point, do.square(point))
    patch.output(point, double)
    with do.attached(slim, patch) as wiring:
        edited = do.picture(slim, steps=1)
        getattr(do.at(slim, point), table).clear()
        assert_refused(slim, do, wiring, point.name, "hook was removed from the module", "editor.reattach()")
        wiring.set(wiring.patches)
        assert torch.equal(do.picture(slim, steps=1), edited)


@pytest.mark.parametrize("table", ["_forward_pre_hooks", "_forward_hooks"])
def test_a_hook_that_vanishes_in_the_middle_of_a_pass_is_missed_at_its_end(slim, do, table):
    point = do.one(slim, "cross_attn.k")
    patch = do.patch(slim, "step", "unet.step", lambda call: getattr(do.at(slim, point), table).clear())
    patch.map(point, do.square(point))
    patch.output(point, double)
    with do.attached(slim, patch):
        with pytest.raises(EditLost) as lost:
            do.picture(slim, steps=1)
        assert_lost(lost.value, point.name, "hook did not run in this pass of unet", "Attach before compiling")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("unet", "unet"),
        ("text_encoder", "text_encoder"),
        ("unet.up_blocks.0", "unet.mid, unet.skip.0"),
        ("unet.conv_in", "unet.conv_in"),
    ],
)
def test_every_hook_that_is_missing_is_named(slim, do, path, name):
    part, _, inner = path.partition(".")
    module = getattr(slim, part).get_submodule(inner)
    with do.attached(slim, *do.every_verb(slim)) as wiring:
        module._forward_pre_hooks.clear()
        module._forward_hooks.clear()
        assert {lost.point for lost in wiring.verify()} == {name}
        with pytest.raises(EditLost):
            do.picture(slim)


@pytest.mark.parametrize("table", ["_forward_pre_hooks", "_forward_hooks"])
@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_a_guard_removed_by_half_is_noticed_by_the_other(slim, do, part, table):
    with do.attached(slim, do.patch(slim, "map", "unet.text", do.dense(16, 16))) as wiring:
        getattr(getattr(slim, part), table).clear()
        assert_refused(slim, do, wiring, part, "hook was removed from the module", "editor.reattach()")


def test_a_removed_u_net_guard_is_noticed_without_a_text_encoder_pass(slim, do):
    given = do.inputs(slim)
    with do.attached(slim, do.patch(slim, "map", "unet.text", do.dense(16, 16))):
        slim.unet._forward_pre_hooks.clear()
        with pytest.raises(EditLost, match="hook was removed"):
            do.predict(slim, **given)


def test_an_edited_layer_called_on_its_own_says_that_its_edit_cannot_act(slim, do):
    point = do.one(slim, "cross_attn.k")
    with do.attached(slim, do.patch(slim, "input", point, double)):
        with pytest.raises(EditLost) as lost:
            do.at(slim, point)(torch.zeros(1, 16))
        assert_lost(lost.value, point.name, "outside of a pass of the whole model", "Call the model itself")


def test_maps_and_adds_act_in_a_layer_called_on_its_own(exact_sd1, do):
    point = do.one(exact_sd1, "cross_attn.k")
    patch = do.patch(exact_sd1, "map", point, change := do.square(point))
    patch.add(point, other := do.oblong(point))
    layer, x = do.at(exact_sd1, point), torch.ones(1, 3, 16, dtype=torch.float64)
    expected = layer(x + x @ change.weight.T) + x @ other.weight.T
    with do.attached(exact_sd1, patch):
        assert torch.equal(layer(x), expected)


# Prompt embeddings that go round an edited text encoder


def encoded(pipe, *, images=1, negative="blue"):
    """Arguments with which a pipeline takes embeddings in place of a prompt."""
    if hasattr(pipe, "text_encoder_2"):
        made = pipe.encode_prompt(CAT, negative_prompt=negative, num_images_per_prompt=images)
        names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    else:
        made = pipe.encode_prompt(CAT, "cpu", images, True, negative)
        names = ("prompt_embeds", "negative_prompt_embeds")
    return dict(zip(names, made, strict=True))


def encoder_edit(pipe, do, point="text_encoder.layers.1.mlp.fc2"):
    return do.patch(pipe, "output", point, double)


def assert_bypassed(pipe, do, point="text_encoder.layers.1.mlp.fc2", **given):
    part = point.partition(".")[0]
    with pytest.raises(BypassedError) as bypassed:
        do.picture(pipe, None, steps=1, **given)
    assert_lost(bypassed.value, point, f"not made by {part} as it is edited now", "allow=('prompt_embeds',)")


def test_embeddings_made_before_attaching_are_refused(pipe, do):
    given = encoded(pipe)
    with do.attached(pipe, encoder_edit(pipe, do)):
        assert_bypassed(pipe, do, **given)


def test_each_edited_encoder_must_have_made_the_embeddings(sdxl, do):
    given, point = encoded(sdxl), "text_encoder_2.layers.1.mlp.fc2"
    with do.attached(sdxl, encoder_edit(sdxl, do, point)):
        assert_bypassed(sdxl, do, point, **given)
        do.picture(sdxl, None, steps=1, **encoded(sdxl))
        do.picture(sdxl, CAT, steps=1, negative_prompt="blue", prompt_2="a dog")


def test_embeddings_are_nobody_s_business_when_only_the_u_net_is_edited(pipe, do):
    given = encoded(pipe)
    with do.attached(pipe, do.patch(pipe, "output", "unet.mid", double)):
        from_embeddings = do.picture(pipe, None, steps=1, **given)
        assert torch.equal(from_embeddings, do.picture(pipe, CAT, negative_prompt="blue", steps=1))


def test_embeddings_made_while_attached_pass(pipe, do):
    with do.attached(pipe, encoder_edit(pipe, do)):
        edited = do.picture(pipe, CAT, negative_prompt="blue", steps=1)
        assert torch.equal(do.picture(pipe, None, steps=1, **encoded(pipe)), edited)


@pytest.mark.parametrize("negative", [None, "", "blue"])
def test_prompts_pass_with_and_without_negative_prompts(pipe, do, negative):
    options = {} if negative is None else {"negative_prompt": negative}
    plain = do.picture(pipe, CAT, steps=1, **options)
    with do.attached(pipe, encoder_edit(pipe, do)):
        assert not torch.equal(do.picture(pipe, CAT, steps=1, **options), plain)


def test_several_images_of_several_prompts_pass(pipe, do):
    with do.attached(pipe, encoder_edit(pipe, do)):
        made = do.picture(pipe, [CAT, "a dog"], num_images_per_prompt=2, steps=1)
        assert made.shape[0] == 4
        do.picture(pipe, None, steps=1, **encoded(pipe, images=2))


def test_clip_skip_passes(sdxl, do):
    with do.attached(sdxl, encoder_edit(sdxl, do, "text_encoder.layers.0.mlp.fc2")):
        edited = do.picture(sdxl, CAT, steps=1, clip_skip=1)
        assert not torch.equal(edited, do.picture(sdxl, CAT, steps=1))


@torch.no_grad()
def test_clip_skip_with_the_last_norm_passes(sd1, do):
    """As StableDiffusionPipeline.encode_prompt does it; by hand, because diffusers 0.42 calls it by a path that
    transformers 5 no longer has."""

    def skipped():
        ids = sd1.tokenizer([CAT, ""], padding="max_length", max_length=16, return_tensors="pt").input_ids
        states = sd1.text_encoder(ids, output_hidden_states=True)[-1][-2]
        prompt, negative = sd1.text_encoder.final_layer_norm(states).split(1)
        return {"prompt_embeds": prompt, "negative_prompt_embeds": negative}

    before = skipped()
    with do.attached(sd1, encoder_edit(sd1, do)):
        do.picture(sd1, None, steps=1, **skipped())
        assert_bypassed(sd1, do, **before)


def test_embeddings_made_before_the_patches_changed_are_refused(pipe, do):
    edit, other = encoder_edit(pipe, do), do.patch(pipe, "output", "unet.mid", double)
    with do.attached(pipe, edit) as wiring:
        given = encoded(pipe)
        wiring.set([edit, other])
        assert_bypassed(pipe, do, **given)
        given = encoded(pipe)
        do.picture(pipe, None, steps=1, **given)
        wiring.set([other])
        do.picture(pipe, None, steps=1, **given)
        wiring.set([edit])
        assert_bypassed(pipe, do, **given)


def test_embeddings_still_pass_after_a_change_of_patches_failed(pipe, do):
    bad = (
        do.patch(pipe, "add", "text_encoder.embeddings.position_embedding", do.dense(16, 16))
        if (not hasattr(pipe, "text_encoder_2"))
        else do.patch(pipe, "add", "text_encoder_2.text_model.embeddings.position_embedding", do.dense(16, 24))
    )
    with do.attached(pipe, encoder_edit(pipe, do)) as wiring:
        given = encoded(pipe)
        with pytest.raises(BadEdit):
            wiring.set([bad])
        do.picture(pipe, None, steps=1, **given)


def test_one_row_from_elsewhere_is_enough_to_refuse(sd1, do):
    before = encoded(sd1)
    with do.attached(sd1, encoder_edit(sd1, do)):
        now = encoded(sd1)
        assert_bypassed(sd1, do, **(now | {"negative_prompt_embeds": before["negative_prompt_embeds"]}))
        assert_bypassed(sd1, do, **(now | {"prompt_embeds": before["prompt_embeds"]}))


def test_reweighted_embeddings_are_refused(sd1, do):
    with do.attached(sd1, encoder_edit(sd1, do)):
        given = encoded(sd1)
        assert_bypassed(sd1, do, **(given | {"prompt_embeds": given["prompt_embeds"] * 1.1}))


def test_embeddings_are_allowed_by_name(pipe, do):
    given = encoded(pipe)
    plain = do.picture(pipe, None, steps=1, **given)
    with do.attached(pipe, encoder_edit(pipe, do), allow=("prompt_embeds",)):
        assert torch.equal(do.picture(pipe, None, steps=1, **given), plain)


def test_only_what_exists_can_be_allowed(sd1):
    with pytest.raises(BadEdit, match="Cannot allow prompt; what can be allowed: prompt_embeds"):
        Wiring(sd1, allow=("prompt_embeds", "prompt"))


def test_embeddings_cast_to_the_u_net_s_dtype_pass(fresh_slim, do):
    pipe = fresh_slim()
    pipe.unet.to(torch.bfloat16)
    with do.attached(pipe, encoder_edit(pipe, do)):
        given = {name: value.to(torch.bfloat16) for name, value in encoded(pipe).items()}
        text = torch.cat([given["negative_prompt_embeds"], given["prompt_embeds"]])
        do.predict(pipe, encoder_hidden_states=text)
        with pytest.raises(BypassedError):
            do.predict(pipe, encoder_hidden_states=text.nextafter(text + 1))


def test_another_pipeline_s_text_encoder_does_not_do(slim, do):
    from diffusers import StableDiffusionPipeline

    other = StableDiffusionPipeline(
        **(slim.components | {"text_encoder": copy.deepcopy(slim.text_encoder)}), requires_safety_checker=False
    )
    other.set_progress_bar_config(disable=True)
    with do.attached(slim, encoder_edit(slim, do)):
        do.picture(slim, steps=1)
        with pytest.raises(BypassedError):
            do.picture(other, "a dog", steps=1)
