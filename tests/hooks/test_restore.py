"""What comes off again: everything, bit for bit, however the generation ended."""

from __future__ import annotations

import pytest
import torch

from efface_hooks import current

PLACES = ("input", "output", "unet.skip.0", "unet.mid", "unet.text", "unet.step", "text_encoder")


class Broken(Exception):
    """Raised in the middle of a pass."""


def raising(pipe, do, place, error):
    """A patch whose edit at that place raises in its second pass, and the list of its passes."""
    passes = []

    def edit(*args):
        passes.append(place)
        if len(passes) == 2:
            raise error
        return args[0]

    if place == "unet.step":
        return do.patch(pipe, "step", place, edit)
    if place == "text_encoder":
        return do.patch(pipe, "output", "text_encoder.layers.0.mlp.fc2", edit)
    if place in ("input", "output"):
        return do.patch(pipe, place, do.one(pipe, "cross_attn.q", 3), edit)
    return do.patch(pipe, "output", place, edit)


def test_after_clearing_everything_is_as_it_was(pipe, do):
    state = do.hook_counts(pipe), do.weight_bytes(pipe), do.picture(pipe)
    with do.attached(pipe, *do.every_verb(pipe)):
        edited = do.picture(pipe)
        assert do.hook_counts(pipe) != state[0]
        assert do.weight_bytes(pipe) == state[1]
        assert torch.equal(do.picture(pipe), edited)
    assert not torch.equal(edited, state[2])
    assert (do.hook_counts(pipe), do.weight_bytes(pipe)) == state[:2]
    assert torch.equal(do.picture(pipe), state[2])
    assert current() is None


def test_the_empty_list_is_the_base_model(pipe, do):
    state, plain = do.hook_counts(pipe), do.picture(pipe)
    with do.attached(pipe, *do.every_verb(pipe)) as wiring:
        wiring.set([])
        assert do.hook_counts(pipe) == state
        assert torch.equal(do.picture(pipe), plain)


def test_what_is_on_is_a_function_of_the_list_and_not_of_its_history(pipe, do):
    first, second, third = do.every_verb(pipe)
    with do.attached(pipe, second):
        counts, alone = do.hook_counts(pipe), do.picture(pipe)
    with do.attached(pipe, first, second) as wiring:
        both = do.picture(pipe)
        wiring.set([second])
        assert do.hook_counts(pipe) == counts
        assert torch.equal(do.picture(pipe), alone)
        wiring.set([third, first])
        wiring.set([first, second])
        assert torch.equal(do.picture(pipe), both)
    assert not torch.equal(both, alone)


def test_setting_the_same_list_again_doubles_nothing(pipe, do):
    patches = do.every_verb(pipe)
    with do.attached(pipe, *patches) as wiring:
        counts, once = do.hook_counts(pipe), do.picture(pipe)
        wiring.set(patches)
        assert do.hook_counts(pipe) == counts
        assert torch.equal(do.picture(pipe), once)


@pytest.mark.parametrize("place", PLACES)
def test_an_edit_that_raises_leaves_nothing_behind(sd1, do, place):
    plain, keep = do.picture(sd1), do.every_verb(sd1)
    with do.attached(sd1, *keep):
        edited = do.picture(sd1)
    with do.attached(sd1, *keep, raising(sd1, do, place, Broken("an edit"))) as wiring:
        with pytest.raises(Broken, match="an edit"):
            do.picture(sd1)
        assert current() is None
        wiring.set(keep)
        assert torch.equal(do.picture(sd1), edited)
    assert torch.equal(do.picture(sd1), plain)


@pytest.mark.parametrize("place", PLACES)
def test_an_interrupted_edit_leaves_nothing_to_the_next_picture(sd1, do, place):
    plain, interrupted = do.picture(sd1), raising(sd1, do, place, KeyboardInterrupt())
    keep, (look, calls) = do.every_verb(sd1), do.seeing(sd1, lambda call: call)
    with do.attached(sd1, *keep):
        edited = do.picture(sd1)
    with do.attached(sd1, *keep, interrupted, look):
        with pytest.raises(KeyboardInterrupt):
            do.picture(sd1)
        before = len(calls)
        assert torch.equal(do.picture(sd1), edited)
        assert current() is None
        assert len(calls) == before + 2
        assert len({id(call.memo) for call in calls}) == len(calls)
    assert torch.equal(do.picture(sd1), plain)


def test_clearing_after_an_interrupt_forgets_the_open_call(sd1, do):
    with do.attached(sd1, raising(sd1, do, "unet.mid", KeyboardInterrupt())), pytest.raises(KeyboardInterrupt):
        do.picture(sd1)
    assert current() is None


def test_a_callback_that_raises_leaves_the_edits_on_and_whole(sd1, do):
    def stop(pipe, step, timestep, kwargs):
        raise Broken("callback")

    with do.attached(sd1, *do.every_verb(sd1)):
        counts, edited = do.hook_counts(sd1), do.picture(sd1)
        with pytest.raises(Broken, match="callback"):
            do.picture(sd1, callback_on_step_end=stop)
        assert current() is None
        assert do.hook_counts(sd1) == counts
        assert torch.equal(do.picture(sd1), edited)


@pytest.mark.parametrize("error", [Broken("module"), KeyboardInterrupt()])
@pytest.mark.parametrize("path", ["unet.mid_block", "unet.conv_out", "text_encoder.encoder"])
def test_a_module_that_raises_leaves_the_edits_on_and_whole(sd1, do, path, error):
    def fail(module, args):
        raise error

    part, _, inner = path.partition(".")
    with do.attached(sd1, *do.every_verb(sd1)):
        counts, edited = do.hook_counts(sd1), do.picture(sd1)
        handle = getattr(sd1, part).get_submodule(inner).register_forward_pre_hook(fail)
        with pytest.raises(type(error)):
            do.picture(sd1)
        handle.remove()
        assert torch.equal(do.picture(sd1), edited)
        assert current() is None
        assert do.hook_counts(sd1) == counts


def test_a_call_with_wrong_arguments_leaves_no_open_call(sd1, do):
    with do.attached(sd1, *do.every_verb(sd1)[:2]):
        edited = do.predict(sd1)
        with pytest.raises(Exception, match="encoder_hidden_states"), torch.no_grad():
            sd1.unet(do.inputs(sd1)["sample"], 3)
        assert current() is None
        assert torch.equal(do.predict(sd1), edited)


@pytest.mark.parametrize("place", ["unet.mid", "unet.skip.2", "unet.text", "unet.step", "input"])
def test_an_edit_may_run_a_text_encoder_inside_its_pass(sd1, do, place):
    ids = torch.zeros(1, 16, dtype=torch.int64)
    inside, after, look = [], [], do.patch(sd1, "output", "text_encoder.layers.1.mlp.fc2", lambda x, call: x)
    look.output(do.one(sd1, "text_encoder.v"), lambda x, call: inside.append(call.component) or x)

    def edit(*args):
        sd1.text_encoder(ids)
        after.append(current() is args[-1])
        return args[0]

    verb = {"unet.step": "step", "input": "input"}.get(place, "output")
    point = do.one(sd1, "cross_attn.v") if place == "input" else place
    with do.attached(sd1, look, do.patch(sd1, verb, point, edit)):
        do.predict(sd1, encoder_hidden_states=sd1.text_encoder(ids.repeat(2, 1))[0].detach())
    assert inside == ["text_encoder", "text_encoder"]
    assert after == [True]


def test_a_side_pass_that_raises_and_is_caught_leaves_the_pass_around_it_open(sd1, do):
    def fail(module, args):
        raise Broken("side pass")

    after = []

    def edit(x, call):
        handle = sd1.text_encoder.encoder.register_forward_pre_hook(fail)
        with pytest.raises(Broken):
            sd1.text_encoder(torch.zeros(1, 16, dtype=torch.int64))
        handle.remove()
        after.append(current() is call)
        return x

    with do.attached(sd1, do.patch(sd1, "output", "unet.mid", edit)):
        do.predict(sd1)
    assert after == [True]
    assert current() is None


def test_outside_of_a_pass_there_is_no_call(sd1, do):
    assert current() is None
    look, during = do.seeing(sd1, lambda call: current() is call)
    with do.attached(sd1, look):
        assert current() is None
        do.predict(sd1)
        assert current() is None
    assert during == [True]
