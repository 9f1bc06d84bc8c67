"""An edit whose layer gets an adapter, loses one, or is computed by a fused layer follows it in the next pass."""

from __future__ import annotations

import copy
import threading

import pytest
import torch

from efface_hooks import AlreadyEdited, BadEdit, EditLost, Patch, Wiring, find, guard, points, taps


def double(x, call):
    return 2 * x


def key_map(pipe, do, seed=0):
    point = do.one(pipe, "cross_attn.k")
    return do.patch(pipe, "map", point, do.square(point, seed, dtype=torch.float32))


def all_of(pipe, do, point):
    """Every verb that a projection takes, at one of them."""
    patch = Patch(pipe)
    patch.map(point, do.square(point, size=0.2))
    patch.add(point, do.oblong(point, 1, size=0.2))
    patch.input(point, lambda x, call: x + 0.5)
    patch.output(point, double)
    return patch


def assert_followed(pipe, do, wiring, edited, atol=0.0):
    """Nothing is wrong before the next picture, that picture is right, and all hooks are on the layers there are."""
    assert wiring.verify() == []
    torch.testing.assert_close(do.picture(pipe), edited, rtol=0, atol=atol)
    assert list(guard.lost_edits(wiring)) == []
    hooked = {id(module) for module in pipe.unet.modules() if module._forward_pre_hooks or module._forward_hooks}
    wanted = {id(socket.place.module) for socket in wiring.plan.sockets if socket.place.component == "unet"}
    assert hooked == wanted | {id(pipe.unet)}


# Fused projections

FUSED = ["cross_attn.k", "cross_attn.v", "self_attn.q", "self_attn.k", "self_attn.v"]


@pytest.mark.parametrize("kind", FUSED)
@pytest.mark.parametrize("first", ["attach", "fuse"])
def test_an_edit_acts_in_its_part_of_a_fused_layer(fresh_slim, do, kind, first):
    pipe = fresh_slim(dtype=torch.float64)
    patch, plain = all_of(pipe, do, do.one(pipe, kind)), do.picture(pipe)
    with do.attached(pipe, patch):
        edited = do.picture(pipe)
    if first == "fuse":
        pipe.unet.fuse_qkv_projections()
    with do.attached(pipe, patch) as wiring:
        if first == "attach":
            pipe.fuse_qkv_projections(vae=False)
        assert_followed(pipe, do, wiring, edited, atol=1e-10)
        pipe.unet.unfuse_qkv_projections()
        pipe.unet.fuse_qkv_projections()  # the fused layers are new ones
        assert_followed(pipe, do, wiring, edited, atol=1e-10)
        pipe.unet.unfuse_qkv_projections()
        assert_followed(pipe, do, wiring, edited)
    assert torch.equal(do.picture(pipe), plain)


def test_edits_of_two_parts_of_a_fused_layer_act_together(fresh_slim, do):
    pipe = fresh_slim(dtype=torch.float64)
    patches = [all_of(pipe, do, do.one(pipe, kind)) for kind in FUSED]
    with do.attached(pipe, *patches) as wiring:
        edited = do.picture(pipe)
        pipe.unet.fuse_qkv_projections()
        assert_followed(pipe, do, wiring, edited, atol=1e-10)
        assert len([one for one in wiring.plan.sockets if isinstance(one.tap, taps.FusedTap)]) == 2
        wiring.set(patches[:1])
        with_one = do.picture(pipe)
    pipe.unet.unfuse_qkv_projections()
    with do.attached(pipe, patches[0]):
        torch.testing.assert_close(do.picture(pipe), with_one, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", ["cross_attn.out", "cross_attn.q", "self_attn.out", "text"])
def test_edits_elsewhere_stay_where_they_are(fresh_slim, do, kind):
    pipe = fresh_slim(dtype=torch.float64)
    point = do.one(pipe, kind)
    with do.attached(pipe, do.patch(pipe, "map", point, do.square(point, size=0.2))) as wiring:
        edited, plan = do.picture(pipe), wiring.plan
        pipe.unet.fuse_qkv_projections()
        assert_followed(pipe, do, wiring, edited, atol=1e-10)
        assert wiring.plan is plan


def test_a_hook_removed_from_a_fused_layer_is_noticed(slim, do):
    patch = key_map(slim, do)
    slim.unet.fuse_qkv_projections()
    with do.attached(slim, patch) as wiring:
        (fused,) = [one.place.module for one in wiring.plan.sockets if isinstance(one.tap, taps.FusedTap)]
        fused._forward_hooks.clear()
        with pytest.raises(EditLost, match=f"{patch.edits[0].point.name} does not act: its hook was removed"):
            do.picture(slim)


# LoRA


def load_lora(pipe, *targets, name="default", seed=3):
    from peft import LoraConfig

    torch.manual_seed(seed)
    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=list(targets), init_lora_weights=False), name)


def test_an_edit_follows_its_layer_into_an_adapter_and_out_again(slim, do):
    patch = key_map(slim, do)
    with do.attached(slim, patch):
        alone = do.picture(slim)
    load_lora(slim, "to_k")
    with do.attached(slim, patch):
        both = do.picture(slim)
    slim.unet.unload_lora()
    assert not torch.equal(both, alone)
    with do.attached(slim, patch) as wiring:
        for seed, picture in ((3, both), (4, None), (3, both)):
            load_lora(slim, "to_k", seed=seed)
            if picture is not None:
                assert_followed(slim, do, wiring, picture)
            slim.unet.unload_lora()
            if picture is not None:
                assert_followed(slim, do, wiring, alone)
        # one adapter goes and another comes between two pictures
        load_lora(slim, "to_k", seed=4)
        do.picture(slim)
        slim.unet.unload_lora()
        load_lora(slim, "to_k")
        assert_followed(slim, do, wiring, both)


def test_an_adapter_deleted_or_switched_off_in_place_leaves_the_edit_on(fresh_slim, do):
    pipe = fresh_slim(dtype=torch.float64)
    patch = key_map(pipe, do)
    with do.attached(pipe, patch):
        edited = do.picture(pipe)
    load_lora(pipe, "to_k")
    pipe.unet.double()
    with do.attached(pipe, patch) as wiring:
        assert not torch.allclose(do.picture(pipe), edited)
        pipe.unet.disable_adapters()
        torch.testing.assert_close(do.picture(pipe), edited, rtol=0, atol=1e-10)
        pipe.unet.enable_adapters()
        pipe.unet.delete_adapters("default")
        assert wiring.verify() == []
        torch.testing.assert_close(do.picture(pipe), edited, rtol=0, atol=1e-10)


def test_a_lora_elsewhere_disturbs_no_edit(slim, do):
    patch = key_map(slim, do)
    patch.output("unet.skip.0", double)
    with do.attached(slim, patch) as wiring:
        plan = wiring.plan
        load_lora(slim, "to_q")
        do.picture(slim)
        slim.unet.unload_lora()
        do.picture(slim)
        assert wiring.plan is plan


def test_an_edit_of_a_text_encoder_follows_before_the_prompt_is_read(slim, do):
    from peft import LoraConfig

    point = find(slim, "text_encoder.layers.0.mlp.fc2")
    patch = do.patch(slim, "output", point, double)
    torch.manual_seed(3)
    lora = LoraConfig(r=2, target_modules=["fc2"], init_lora_weights=False)
    with do.attached(slim, patch) as wiring:
        given = slim.encode_prompt("a cat", "cpu", 1, True, "")
        slim.text_encoder.add_adapter(lora)
        assert wiring.verify() == []
        both = do.picture(slim)
        # embeddings that were made while the edit acted, before the adapter came
        do.picture(slim, None, prompt_embeds=given[0], negative_prompt_embeds=given[1])
    with do.attached(slim, patch):
        assert torch.equal(do.picture(slim), both)


def test_looking_changes_nothing(slim, do):
    with do.attached(slim, key_map(slim, do)) as wiring:
        plan = wiring.plan
        load_lora(slim, "to_k")
        counts = do.hook_counts(slim)
        assert wiring.verify() == []
        assert do.hook_counts(slim) == counts
        assert wiring.plan is plan


def test_nothing_follows_while_one_edit_is_lost(slim, do):
    key, up = do.one(slim, "cross_attn.k"), slim.unet.up_blocks[0]
    with do.attached(slim, key_map(slim, do), do.patch(slim, "output", "unet.skip.0", double)) as wiring:
        load_lora(slim, "to_k")
        slim.unet.up_blocks[0] = copy.deepcopy(up)
        (lost,) = wiring.verify()
        assert lost.point == "unet.skip.0"
        for _ in range(2):
            with pytest.raises(EditLost, match=r"unet\.skip\.0 .* replaced by another module"):
                do.picture(slim)
        assert not do.at(slim, key)._forward_pre_hooks
        slim.unet.up_blocks[0] = up
        assert wiring.verify() == []
        do.picture(slim)
        assert do.at(slim, key)._forward_pre_hooks


@pytest.mark.parametrize("error", [RuntimeError("half-way"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_following_happens_wholly_or_not_at_all(slim, do, monkeypatch, error):
    keys = points(slim, "cross_attn.k")
    patch = Patch(slim)
    for point in keys:
        patch.map(point, do.square(point, dtype=torch.float32))
    with do.attached(slim, patch) as wiring:
        load_lora(slim, "to_k")
        counts, plan = do.hook_counts(slim), wiring.plan
        register, calls = torch.nn.Module.register_forward_pre_hook, []

        def failing(self, *args, **kwargs):
            calls.append(self)
            if len(calls) == len(keys):
                raise error
            return register(self, *args, **kwargs)

        with monkeypatch.context() as patched:
            patched.setattr(torch.nn.Module, "register_forward_pre_hook", failing)
            with pytest.raises(type(error)):
                do.predict(slim)
        assert do.hook_counts(slim) == counts
        assert wiring.plan is plan
        after = do.predict(slim)
        wiring.set(wiring.patches)
        assert torch.equal(do.predict(slim), after)


def test_an_edit_that_its_layer_cannot_take_any_more_is_lost(slim, do, monkeypatch):
    point = do.one(slim, "cross_attn.k")
    with do.attached(slim, do.patch(slim, "add", point, do.oblong(point))) as wiring:
        load_lora(slim, "to_k")

        def refuse(module):
            raise BadEdit("no such layer")

        monkeypatch.setattr("efface_hooks.plan.layer_change", refuse)
        (lost,) = wiring.verify()
        assert lost.point == point.name
        assert "adapter (LoRA) was loaded around its layer" in lost.cause
        with pytest.raises(EditLost, match="adapter"):
            do.picture(slim)


def test_edits_follow_although_their_pipeline_is_gone(fresh_slim, do):
    from diffusers import StableDiffusionPipeline

    first = fresh_slim()
    other = StableDiffusionPipeline(**first.components, requires_safety_checker=False)
    other.set_progress_bar_config(disable=True)
    patch = key_map(first, do)
    wiring = Wiring(first)
    wiring.set([patch])
    patch._pipe = None
    del first
    load_lora(other, "to_k")
    both = do.picture(other)
    wiring.clear()
    with do.attached(other, key_map(other, do)):
        assert torch.equal(do.picture(other), both)


def test_two_threads_that_both_find_the_adapter_paint_what_one_does(slim, do):
    patch, given = key_map(slim, do), do.inputs(slim)
    load_lora(slim, "to_k")
    with do.attached(slim, patch):
        both = do.predict(slim, **given)
    slim.unet.unload_lora()
    for _ in range(3):
        with do.attached(slim, patch) as wiring:
            load_lora(slim, "to_k")
            results, start = [], threading.Barrier(2)

            def paint(start=start, results=results):
                start.wait()
                results.append(do.predict(slim, **given))

            threads = [threading.Thread(target=paint) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(results) == 2
            assert all(torch.equal(result, both) for result in results)
            assert wiring.verify() == []
        slim.unet.unload_lora()


# Copies


def test_a_copied_pipeline_has_edits_of_its_own(slim, do):
    plain = do.picture(slim)
    with do.attached(slim, *do.every_verb(slim), owner=owner_of(slim)) as wiring:
        edited = do.picture(slim)
        twin = copy.deepcopy(slim)
        own = Wiring.of(twin)
        assert own is not wiring
        assert own.pipe() is twin
        assert own.verify() == []
        assert own.owner["pipe"] is twin
        assert torch.equal(do.picture(twin), edited)
        own.clear()
        assert torch.equal(do.picture(twin), plain)
        assert torch.equal(do.picture(slim), edited)
    assert do.hook_counts(twin) == do.hook_counts(slim)


def owner_of(pipe):
    return {"pipe": pipe}


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_a_model_copied_without_its_pipeline_paints_nothing(slim, do, part):
    with do.attached(slim, key_map(slim, do)):
        edited = do.picture(slim)
        twin = copy.deepcopy(getattr(slim, part))
        assert torch.equal(do.picture(slim), edited)
    setattr(slim, part, twin)
    with pytest.raises(EditLost, match=r"copied without its pipeline\. Copy the pipeline that was edited"):
        do.picture(slim)
    if part == "unet":
        with pytest.raises(EditLost, match="copied without"):
            Wiring(slim).set([])
        with pytest.raises(EditLost, match="copied without"):
            Wiring.of(slim).set([])


def test_a_copy_of_a_second_pipeline_on_the_same_model_paints_nothing(slim, do):
    from diffusers import StableDiffusionPipeline

    other = StableDiffusionPipeline(**slim.components, requires_safety_checker=False)
    with do.attached(slim, key_map(slim, do)):
        twin = copy.deepcopy(other)
    with pytest.raises(EditLost, match="copied without its pipeline"):
        do.picture(twin)


# Weights that edits are fused into


def written(pipe, do):
    (socket,) = [socket for socket in planned_sockets(pipe, do) if socket.place.path.endswith("to_k")]
    return [socket.place]


def planned_sockets(pipe, do):
    from efface_hooks.plan import planned

    return planned(pipe, [key_map(pipe, do)]).sockets


def test_an_adapter_around_a_fused_weight_is_refused(slim, do):
    with do.attached(slim, key_map(slim, do)) as wiring:
        wiring.hold(written(slim, do))
        do.picture(slim)
        load_lora(slim, "to_k")
        (lost,) = wiring.verify()
        assert lost.remedy == "Call editor.unfuse(), or take the adapter off."
        with pytest.raises(EditLost, match=r"adapter .* fused into the weight .* editor\.unfuse\(\)"):
            do.picture(slim)
        slim.unet.unload_lora()
        assert wiring.verify() == []
        do.picture(slim)


def test_a_held_text_encoder_still_has_to_make_the_embeddings(slim, do):
    from efface_hooks import BypassedError
    from efface_hooks.plan import planned

    patch = do.patch(slim, "add", point := find(slim, "text_encoder.layers.1.mlp.fc2"), do.oblong(point))
    before = slim.encode_prompt("a cat", "cpu", 1, True, "")
    with do.attached(slim, patch) as wiring:
        wiring.hold([socket.place for socket in planned(slim, [patch]).sockets])
        with pytest.raises(BypassedError, match=point.name):
            do.picture(slim, None, prompt_embeds=before[0], negative_prompt_embeds=before[1])
        do.picture(slim)
        with pytest.raises(AlreadyEdited):
            Wiring(slim).set([])
