"""Half precision: what is edited keeps its dtype, what edits it is computed in float32 or wider."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

from efface_hooks import Dense, LowRank, Patch, points

HALVES = (torch.float16, torch.bfloat16)


@contextmanager
def watched(module):
    """What a module is given and gives: hooks that stand before those attached inside the block, so unedited."""
    seen = {}
    handles = [
        module.register_forward_pre_hook(lambda module, args: seen.update(given=args[0])),
        module.register_forward_hook(lambda module, args, output: seen.update(made=output)),
    ]
    yield seen
    for handle in handles:
        handle.remove()


def edited_input(pipe, do, point, patch):
    """The input of a point as it was, and as its layer saw it."""
    with watched(do.at(pipe, point)) as before, do.attached(pipe, patch), watched(do.at(pipe, point)) as after:
        do.predict(pipe)
    return before["given"], after["given"]


def edited_output(pipe, do, point, patch):
    """The input and the output of a point's layer as they were, and the output that went on."""
    with watched(do.at(pipe, point)) as before, do.attached(pipe, patch), watched(do.at(pipe, point)) as after:
        do.predict(pipe)
    return before["given"], before["made"], after["made"]


def error(tensor, reference):
    return float((tensor.double() - reference).norm())


@pytest.fixture(params=HALVES, ids=str)
def half(request, fresh_slim):
    return fresh_slim(dtype=request.param)


@pytest.fixture(params=[*HALVES, torch.float32, torch.float64], ids=str)
def any_width(request, fresh_slim):
    return fresh_slim(dtype=request.param)


def test_edits_get_and_leave_the_model_s_own_dtype(any_width, do):
    pipe, dtype, seen = any_width, any_width.unet.dtype, {}
    patch = Patch(pipe)
    for kind in ("text", "skip", "mid", "cross_attn.k", "self_attn.out", "text_encoder.fc2"):
        point = do.one(pipe, kind)
        patch.output(point, lambda x, call, kind=kind: seen.setdefault(kind, x.dtype) and x * 1.5)
        if kind not in ("skip", "mid"):
            patch.map(point, do.square(point, dtype=torch.float32))
    patch.add("unet.conv_in", do.dense(8, 36, dtype=torch.float32))
    with do.attached(pipe, patch):
        edited = do.picture(pipe)
    assert seen == dict.fromkeys(seen, dtype)
    assert len(seen) == 6
    assert edited.dtype is dtype
    assert edited.isfinite().all()
    assert not torch.equal(edited, do.picture(pipe))


def test_an_edit_that_returns_another_dtype_is_cast_back(half, do):
    patch, seen = Patch(half), []
    patch.output("unet.mid", lambda x, call: x.double() + 1)
    patch.output("unet.mid", lambda x, call: seen.append(x) or x)
    plain = Patch(half)
    plain.output("unet.mid", lambda x, call: (x.double() + 1).to(x.dtype))
    pictures = []
    for one in (patch, plain):
        with do.attached(half, one):
            pictures.append(do.predict(half))
    assert seen[0].dtype is half.unet.dtype
    assert torch.equal(*pictures)


@pytest.mark.parametrize("form", ["dense", "lowrank"])
def test_a_map_acts_in_float32(half, do, form):
    point = do.one(half, "cross_attn.k")
    change = getattr(do, form)(16, 16, size=0.05, dtype=torch.float32)
    given, seen = edited_input(half, do, point, do.patch(half, "map", point, change))
    x = given.float()
    product = x @ change.weight.T if form == "dense" else x @ change.down.T @ change.up.T
    assert torch.equal(seen, (x + product).to(given.dtype))
    low = change.dense().to(given.dtype)
    reference = given.double() + given.double() @ change.dense().double().T
    assert error(seen, reference) < error(given + given @ low.T, reference)


def test_an_add_acts_in_float32(half, do):
    point = do.one(half, "cross_attn.v")
    change = do.dense(point.out_features, point.in_features, size=0.05, dtype=torch.float32)
    given, made, gone_on = edited_output(half, do, point, do.patch(half, "add", point, change))
    assert torch.equal(gone_on, (made.float() + given.float() @ change.weight.T).to(made.dtype))
    reference = made.double() + given.double() @ change.weight.double().T
    assert error(gone_on, reference) < error(made + given @ change.weight.to(given.dtype).T, reference)


def test_an_add_at_a_convolution_acts_in_float32(half, do):
    point = Patch(half)
    point.add("unet.conv_in", change := do.dense(8, 36, size=0.05, dtype=torch.float32))
    with watched(half.unet.conv_in) as before, do.attached(half, point), watched(half.unet.conv_in) as after:
        do.predict(half)
    share = torch.nn.functional.conv2d(before["given"].float(), change.weight.view(8, 4, 3, 3), padding=1)
    assert torch.equal(after["made"], (before["made"].float() + share).to(before["made"].dtype))


def test_a_map_of_the_text_acts_in_float32(half, do):
    change, seen = do.dense(16, 16, size=0.05, dtype=torch.float32), []
    patch = do.patch(half, "map", "unet.text", change)
    patch.output("unet.text", lambda x, call: seen.append((call.text, x)) or x)
    with do.attached(half, patch):
        do.predict(half)
    given, edited = seen[0]
    assert torch.equal(edited, (given.float() + given.float() @ change.weight.T).to(given.dtype))


def test_a_double_model_is_edited_in_double(exact_sd1, do):
    point = do.one(exact_sd1, "cross_attn.k")
    change = do.square(point)
    given, seen = edited_input(exact_sd1, do, point, do.patch(exact_sd1, "map", point, change))
    assert torch.equal(seen, given + given @ change.weight.T)


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_factors_are_scaled_and_summed_in_float32(sd1, do, dtype):
    point = do.one(sd1, "cross_attn.k")
    parts = [do.square(point, seed, dtype=dtype) for seed in range(3)]
    thin = do.lowrank(16, 16, 7, dtype=dtype)
    wide = [Dense(part.weight.float()) for part in parts] + [LowRank(thin.up.float(), thin.down.float())]
    pictures = []
    for changes in ([*parts, thin], wide):
        patch = Patch(sd1, scale=0.3)
        for change in changes:
            patch.map(point, change)
        with do.attached(sd1, patch):
            pictures.append(do.predict(sd1))
    torch.testing.assert_close(*pictures, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_does_not_reach_the_factors(sd1, do, dtype):
    key, value = do.one(sd1, "cross_attn.k"), do.one(sd1, "cross_attn.v")
    change, other = do.square(key, dtype=torch.float32), do.oblong(value, dtype=torch.float32)
    with torch.autocast("cpu", dtype):
        given, seen = edited_input(sd1, do, key, do.patch(sd1, "map", key, change))
        x, made, gone_on = edited_output(sd1, do, value, do.patch(sd1, "add", value, other))
    assert made.dtype is dtype
    assert torch.equal(seen, given + given @ change.weight.T)
    assert torch.equal(gone_on, (made.float() + x.float() @ other.weight.T).to(dtype))


def test_autocast_does_not_reach_a_convolution_s_change(sd1, do):
    patch = Patch(sd1)
    patch.add("unet.conv_in", change := do.dense(8, 36, dtype=torch.float32))
    with (
        torch.autocast("cpu", torch.bfloat16),
        watched(sd1.unet.conv_in) as before,
        do.attached(sd1, patch),
        watched(sd1.unet.conv_in) as after,
    ):
        do.predict(sd1)
    share = torch.nn.functional.conv2d(before["given"].float(), change.weight.view(8, 4, 3, 3), padding=1)
    assert torch.equal(after["made"], (before["made"].float() + share).to(torch.bfloat16))


def test_an_edited_picture_under_autocast_is_finite_and_repeats(sd1, do):
    with do.attached(sd1, *do.every_verb(sd1)), torch.autocast("cpu", torch.bfloat16):
        first = do.picture(sd1)
        assert torch.equal(do.picture(sd1), first)
    assert first.isfinite().all()


def test_factors_need_not_have_the_model_s_dtype(half, do):
    for dtype in (torch.float16, torch.float32, torch.float64):
        patch = Patch(half)
        for point in points(half, "cross_attn.k"):
            patch.map(point, do.square(point, dtype=dtype))
        with do.attached(half, patch):
            assert do.predict(half).dtype is half.unet.dtype


def test_edits_follow_the_model_to_another_dtype(fresh_slim, do):
    pipe = fresh_slim()
    point, inputs = do.one(pipe, "cross_attn.k"), do.inputs(pipe)
    change = do.square(point, dtype=torch.float64)
    patch = do.patch(pipe, "map", point, change)
    patch.add("unet.conv_in", do.dense(8, 36))
    with do.attached(pipe, patch), watched(do.at(pipe, point)) as seen:
        do.predict(pipe, **inputs)
        assert seen["given"].dtype is torch.float32
        pipe.unet.double()
        wide = do.inputs(pipe)
        do.predict(pipe, **wide)
    text = wide["encoder_hidden_states"]
    assert torch.equal(seen["given"], text + text @ change.weight.T)


def test_layerwise_casting_keeps_the_edits(fresh_slim, do):
    pipe = fresh_slim()
    point, inputs = do.one(pipe, "cross_attn.k"), do.inputs(pipe)
    change = do.square(point, dtype=torch.float32)
    pipe.unet.enable_layerwise_casting(storage_dtype=torch.bfloat16, compute_dtype=torch.float32)
    assert do.at(pipe, point).weight.dtype is torch.bfloat16
    plain = do.predict(pipe, **inputs)
    with do.attached(pipe, do.patch(pipe, "map", point, change)), watched(do.at(pipe, point)) as seen:
        edited = do.predict(pipe, **inputs)
    text = inputs["encoder_hidden_states"]
    assert torch.equal(seen["given"], text + text @ change.weight.T)
    assert not torch.equal(edited, plain)
    assert torch.equal(do.predict(pipe, **inputs), plain)
