"""Wirings: one for each U-Net, set as a whole or not at all, and safe to share."""

from __future__ import annotations

import copy
import gc
import sys
import threading

import pytest
import torch
from torch import nn

from efface.testing.pipelines import tiny_tokenizer
from efface_hooks import AlreadyEdited, BadEdit, Patch, Wiring, current, wiring


def sharing(pipe, **parts):
    """A second pipeline on the same U-Net."""
    from diffusers import StableDiffusionPipeline

    other = StableDiffusionPipeline(**(pipe.components | parts), requires_safety_checker=False)
    other.set_progress_bar_config(disable=True)
    return other


def failing(call, error, *, after):
    """A function that raises in its call of that number, before or after doing its work."""
    calls = []

    def wrap(function):
        def wrapped(*args, **kwargs):
            calls.append(function)
            if len(calls) == call and not after:
                raise error
            result = function(*args, **kwargs)
            if len(calls) == call:
                raise error
            return result

        return wrapped

    return wrap


ERRORS = pytest.mark.parametrize("error", [RuntimeError("half-way"), KeyboardInterrupt()], ids=["error", "interrupt"])


@ERRORS
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_failure_at_any_registration_leaves_the_former_list_acting(sd1, do, monkeypatch, error, after):
    first, *rest = do.every_verb(sd1)
    with do.attached(sd1, first, *rest) as all_on:
        registrations = len(all_on._hooks)
    text = do.inputs(sd1)
    with do.attached(sd1, first) as on:
        counts, edited, verdict = do.hook_counts(sd1), do.predict(sd1, **text), (on.plan, on.patches)
        for number in range(1, registrations + 1):
            wrap = failing(number, error, after=after)
            with monkeypatch.context() as patched:
                patched.setattr(nn.Module, "register_forward_pre_hook", wrap(nn.Module.register_forward_pre_hook))
                patched.setattr(nn.Module, "register_forward_hook", wrap(nn.Module.register_forward_hook))
                with pytest.raises(type(error)):
                    on.set([first, *rest])
            assert do.hook_counts(sd1) == counts
            assert (on.plan, on.patches) == verdict
            assert on.verify() == []
        assert torch.equal(do.predict(sd1, **text), edited)
        assert Wiring.of(sd1) is on


@ERRORS
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_failure_while_taking_off_leaves_the_former_list_acting(sd1, do, monkeypatch, error, after):
    first, *rest = do.every_verb(sd1)
    with do.attached(sd1, first) as on:
        counts, edited = do.hook_counts(sd1), do.predict(sd1)
        for number in range(1, 8):
            with monkeypatch.context() as patched:
                patched.setattr(wiring, "_unhook", failing(number, error, after=after)(wiring._unhook))
                with pytest.raises(type(error)):
                    on.set(rest)
            assert do.hook_counts(sd1) == counts
        assert torch.equal(do.predict(sd1), edited)


def test_clearing_may_be_interrupted_and_repeated(sd1, do, monkeypatch):
    before, plain = do.hook_counts(sd1), do.predict(sd1)
    on = Wiring(sd1)
    on.set(do.every_verb(sd1))
    with monkeypatch.context() as patched:
        patched.setattr(wiring, "_unhook", failing(3, KeyboardInterrupt(), after=False)(wiring._unhook))
        with pytest.raises(KeyboardInterrupt):
            on.clear()
    assert do.hook_counts(sd1) != before
    on.clear()
    assert do.hook_counts(sd1) == before
    assert torch.equal(do.predict(sd1), plain)


def test_a_list_that_cannot_be_planned_leaves_the_former_one_acting(sd1, do):
    good = do.patch(sd1, "output", "unet.mid", lambda x, call: 2 * x)
    bad = do.patch(sd1, "add", "text_encoder.embeddings.position_embedding", do.dense(16, 16))
    with do.attached(sd1, good) as on:
        edited = do.predict(sd1)
        with pytest.raises(BadEdit, match="not on Embedding"):
            on.set([good, bad])
        assert on.patches == (good,)
        assert torch.equal(do.predict(sd1), edited)


def test_a_u_net_has_one_wiring(sd1, do):
    owner = object()
    assert Wiring.of(sd1) is None
    with do.attached(sd1, Patch(sd1), owner=owner) as on:
        assert Wiring.of(sd1) is on
        assert Wiring.of(sd1).owner is owner
    assert Wiring.of(sd1) is None


def test_a_second_wiring_on_one_u_net_is_refused_until_the_first_is_off(sd1, do):
    double = do.patch(sd1, "output", "unet.mid", lambda x, call: 2 * x)
    with do.attached(sd1, double) as on:
        edited, counts = do.predict(sd1), do.hook_counts(sd1)
        with pytest.raises(AlreadyEdited, match=r"already has an Editor: use Editor\.of\(pipe\)"):
            Wiring(sd1).set([double])
        assert do.hook_counts(sd1) == counts
        assert torch.equal(do.predict(sd1), edited)
        assert Wiring.of(sd1) is on
    with do.attached(sd1, double):
        assert torch.equal(do.predict(sd1), edited)


def test_clearing_a_wiring_that_is_not_on_leaves_the_one_that_is(sd1, do):
    with do.attached(sd1, do.patch(sd1, "output", "unet.mid", lambda x, call: 2 * x)):
        edited = do.predict(sd1)
        Wiring(sd1).clear()
        assert torch.equal(do.predict(sd1), edited)


def test_pipelines_that_share_a_u_net_share_its_edits(slim, do):
    other = sharing(slim)
    plain = do.picture(other)
    with do.attached(slim, *do.every_verb(slim)) as on:
        assert Wiring.of(other) is on
        assert torch.equal(do.picture(other), do.picture(slim))
        assert not torch.equal(do.picture(other), plain)
        with pytest.raises(AlreadyEdited):
            Wiring(other).set([Patch(other)])
    assert torch.equal(do.picture(other), plain)


def test_edits_stay_on_a_u_net_whose_first_pipeline_is_gone(fresh_slim, do):
    first = fresh_slim()
    other = sharing(first)
    on = Wiring(first)
    patches = do.every_verb(first)
    on.set(patches)
    edited = do.picture(other)
    for patch in patches:
        patch._pipe = None
    del first
    gc.collect()
    assert on.pipe() is None
    assert on.verify() == []
    assert torch.equal(do.picture(other), edited)
    with pytest.raises(BadEdit, match="pipeline of these edits is gone"):
        on.set([])
    on.clear()
    assert Wiring.of(other) is None


def test_a_patch_without_edits_puts_on_the_guard_and_changes_no_picture(pipe, do):
    plain = do.picture(pipe)
    with do.attached(pipe, Patch(pipe)) as on:
        assert torch.equal(do.picture(pipe), plain)
        assert Wiring.of(pipe) is on


def test_held_a_u_net_is_unedited_and_still_taken(sd1, do):
    plain = do.predict(sd1)
    with do.attached(sd1, *do.every_verb(sd1)) as on:
        on.hold()
        assert torch.equal(do.predict(sd1), plain)
        assert Wiring.of(sd1) is on
        with pytest.raises(AlreadyEdited):
            Wiring(sd1).set([])
        bad = do.patch(sd1, "add", "text_encoder.embeddings.position_embedding", do.dense(16, 16))
        with pytest.raises(BadEdit):
            on.set([bad])
        assert Wiring.of(sd1) is on


def test_a_failure_while_held_leaves_the_u_net_held(sd1, do, monkeypatch):
    with do.attached(sd1, Patch(sd1)) as on:
        on.hold()
        wrap = failing(2, KeyboardInterrupt(), after=False)
        with monkeypatch.context() as patched:
            patched.setattr(nn.Module, "register_forward_pre_hook", wrap(nn.Module.register_forward_pre_hook))
            with pytest.raises(KeyboardInterrupt):
                on.set(do.every_verb(sd1))
        assert Wiring.of(sd1) is on


def test_saving_while_attached_saves_the_base(slim, do, tmp_path):
    from safetensors.torch import load_file

    base = {name: tensor.clone() for name, tensor in slim.unet.state_dict().items()}
    with do.attached(slim, *do.every_verb(slim)):
        slim.unet.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "diffusion_pytorch_model.safetensors")
    assert saved.keys() == base.keys()
    assert all(torch.equal(saved[name], base[name]) for name in base)


def test_two_threads_on_one_u_net_paint_what_each_paints_alone(slim, do):
    pipes = [sharing(slim, scheduler=copy.deepcopy(slim.scheduler), tokenizer=tiny_tokenizer()) for _ in ("one", "two")]
    prompts, steps = ["a cat", "a red house by a tree"], [12, 9]
    key = do.one(slim, "cross_attn.k")
    patch = do.patch(slim, "map", key, do.square(key))
    patch.add(key, do.oblong(key))
    patch.input(key, lambda x, call: x * (1 + call.timestep[0] / 1000))
    patch.output("unet.skip.0", lambda x, call: call.memo.setdefault("twice", 2 * x))
    patch.output("unet.mid", lambda x, call: x * (1 + call.ids.float().mean() / 1000))
    patch.output("text_encoder.layers.0.mlp.fc2", lambda x, call: x * (1 + call.ids.float().mean() / 1000))
    together, errors = {}, []
    start = threading.Barrier(2)

    def paint(number):
        try:
            start.wait()
            together[number] = do.picture(pipes[number], prompts[number], steps=steps[number], seed=number)
            assert current() is None
        except Exception as error:
            errors.append(error)

    interval = sys.getswitchinterval()
    with do.attached(slim, patch):
        alone = [do.picture(pipes[n], prompts[n], steps=steps[n], seed=n) for n in (0, 1)]
        sys.setswitchinterval(1e-5)
        try:
            for _ in range(2):
                threads = [threading.Thread(target=paint, args=(number,)) for number in (0, 1)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                assert errors == []
                assert all(torch.equal(together[number], alone[number]) for number in (0, 1))
        finally:
            sys.setswitchinterval(interval)
