"""The algebra of maps, adds and edits: each compared with the weight, or the tensor, edited by hand.

Both ways round in float64, where they agree to 1e-11; where the arithmetic is the same, bit for bit.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from efface_hooks import BadEdit, Dense, LowRank, Patch, Wiring, find, points
from efface_hooks.delta import total

CLOSE = {"rtol": 0, "atol": 1e-11}


def weight(pipe, point):
    return dict(pipe.unet.named_parameters())[f"{point.path}.weight"].detach()


def times_map(matrix, change):
    """W (I + E)."""
    return matrix + matrix @ change.dense()


def changes(pipe, do):
    """Three patches whose maps and adds, thin and full, meet at the text, at one key and at one convolution."""
    key = do.one(pipe, "cross_attn.k", 2)
    width, rows, columns = key.in_features, key.out_features, key.in_features
    patches = []
    for number, make in enumerate([do.lowrank, do.dense, do.lowrank]):
        patch = Patch(pipe, scale=1 + number / 7)
        patch.map("unet.text", make(width, width, 10 + number, dtype=torch.float32))
        patch.map(key, make(width, width, 20 + number, dtype=torch.float32))
        patch.add(key, make(rows, columns, 30 + number, dtype=torch.float32))
        patch.add("unet.conv_in", make(8, 36, 40 + number, dtype=torch.float32))
        patches.append(patch)
    return patches


@pytest.mark.parametrize("role", ["q", "k", "v", "out"])
@pytest.mark.parametrize("kind", ["cross_attn", "self_attn"])
def test_a_map_is_the_weight_times_i_plus_e(exact, do, kind, role):
    point = do.one(exact, f"{kind}.{role}", 1)
    change = do.square(point)
    by_hand = do.predict_with(exact, {f"{point.path}.weight": times_map(weight(exact, point), change)})
    with do.attached(exact, do.patch(exact, "map", point, change)):
        torch.testing.assert_close(do.predict(exact), by_hand, **CLOSE)
    assert not torch.allclose(do.predict(exact), by_hand, **CLOSE)


@pytest.mark.parametrize("form", ["dense", "lowrank"])
@pytest.mark.parametrize("role", ["q", "k", "v", "out"])
def test_an_add_is_the_weight_plus_delta(exact, do, role, form):
    point = do.one(exact, f"cross_attn.{role}", 1)
    change = getattr(do, form)(point.out_features, point.in_features)
    by_hand = do.predict_with(exact, {f"{point.path}.weight": weight(exact, point) + change.dense()})
    with do.attached(exact, do.patch(exact, "add", point, change)):
        torch.testing.assert_close(do.predict(exact), by_hand, **CLOSE)
    assert not torch.allclose(do.predict(exact), by_hand, **CLOSE)


def test_one_map_of_the_text_is_that_map_at_every_key_and_value(exact, do):
    readers = points(exact, "cross_attn.k", "cross_attn.v")
    change = do.square(readers[0], size=0.2)
    everywhere = Patch(exact)
    for point in readers:
        everywhere.map(point, change)
    with do.attached(exact, do.patch(exact, "map", "unet.text", change)):
        once = do.predict(exact)
    with do.attached(exact, everywhere):
        assert torch.equal(do.predict(exact), once)
    edited = {f"{point.path}.weight": times_map(weight(exact, point), change) for point in readers}
    torch.testing.assert_close(do.predict_with(exact, edited), once, **CLOSE)


def test_the_text_is_mapped_whether_it_comes_by_position_or_by_keyword(exact, do):
    given = do.inputs(exact)
    positional = (given.pop("sample"), given.pop("timestep"), given.pop("encoder_hidden_states"))
    with do.attached(exact, do.patch(exact, "map", "unet.text", do.square(do.one(exact, "text")))), torch.no_grad():
        assert torch.equal(exact.unet(*positional, **given).sample, do.predict(exact))


def test_maps_and_adds_at_one_point_all_read_the_unedited_input(exact, do):
    point = do.one(exact, "cross_attn.v")
    maps, adds = [do.square(point, seed) for seed in (1, 2)], [do.oblong(point, seed) for seed in (3, 4)]
    first, second = Patch(exact), Patch(exact)
    first.add(point, adds[0])
    first.map(point, maps[0])
    second.map(point, maps[1])
    second.add(point, adds[1])
    base = weight(exact, point)
    edited = base + base @ (maps[0].weight + maps[1].weight) + adds[0].weight + adds[1].weight
    with do.attached(exact, first, second):
        by_hooks = do.predict(exact)
    torch.testing.assert_close(by_hooks, do.predict_with(exact, {f"{point.path}.weight": edited}), **CLOSE)


def test_an_add_reads_the_unedited_input_when_an_edit_changes_it(exact, do):
    point = do.one(exact, "cross_attn.q")
    change = do.oblong(point)
    patch = Patch(exact)
    patch.input(point, lambda x, call: 3 * x)
    patch.add(point, change)
    edited = 3 * weight(exact, point) + change.weight
    with do.attached(exact, patch):
        by_hooks = do.predict(exact)
    torch.testing.assert_close(by_hooks, do.predict_with(exact, {f"{point.path}.weight": edited}), **CLOSE)


def test_two_paths_to_one_module_are_one_point(exact_sd1, do):
    pipe, base = exact_sd1, exact_sd1.encode_prompt("a cat", "cpu", 1, False)[0]
    point = find(pipe, "text_encoder.layers.2.mlp.fc2")
    change, other = do.square(point), do.oblong(point)
    one_name, two_names = Patch(pipe), Patch(pipe)
    for patch, second in ((one_name, point.name), (two_names, "text_encoder.encoder.layers.2.mlp.fc2")):
        patch.map(point, change)
        patch.add(second, other)
    embeddings = []
    for patch in (one_name, two_names):
        with do.attached(pipe, patch):
            embeddings.append(pipe.encode_prompt("a cat", "cpu", 1, False)[0])
    assert torch.equal(*embeddings)
    assert not torch.equal(embeddings[0], base)


def test_a_plugin_s_name_for_a_module_and_its_own_are_one_point(exact_sd1, do):
    point = do.one(exact_sd1, "cross_attn.v")
    change, other = do.square(point), do.oblong(point)
    named, plain = Patch(exact_sd1, extra=[replace(point, name="my.favourite")]), Patch(exact_sd1)
    named.map("my.favourite", change)
    plain.add(point, other)
    edited = times_map(weight(exact_sd1, point), change) + other.weight
    for patches in ((named, plain), (plain, named)):
        with do.attached(exact_sd1, *patches):
            by_hooks = do.predict(exact_sd1)
        by_hand = do.predict_with(exact_sd1, {f"{point.path}.weight": edited})
        torch.testing.assert_close(by_hooks, by_hand, **CLOSE)


def test_a_projection_of_a_text_encoder_is_edited_as_its_weight_is(fresh, do):
    pipe = fresh("sdxl", dtype=torch.float64)
    for encoder in ("text_encoder", "text_encoder_2"):
        fc1, value = find(pipe, f"{encoder}.layers.0.mlp.fc1"), find(pipe, f"{encoder}.layers.1.self_attn.v_proj")
        change, other = do.square(fc1), do.oblong(value)
        patch = do.patch(pipe, "map", fc1, change)
        patch.add(value, other)
        with do.attached(pipe, patch):
            by_hooks = pipe.encode_prompt("a cat")[0]
        with torch.no_grad():
            do.at(pipe, fc1).weight.copy_(times_map(do.at(pipe, fc1).weight, change))
            do.at(pipe, value).weight.add_(other.weight)
        torch.testing.assert_close(by_hooks, pipe.encode_prompt("a cat")[0], **CLOSE)


@pytest.mark.parametrize("form", ["dense", "lowrank"])
@pytest.mark.parametrize(
    ("path", "rows", "columns"),
    [
        ("conv_in", 8, 4 * 9),  # padding 1
        ("down_blocks.0.downsamplers.0.conv", 8, 8 * 9),  # stride 2
        ("down_blocks.1.resnets.0.conv_shortcut", 16, 8),  # 1 x 1
        ("conv_out", 4, 8 * 9),
    ],
)
def test_an_add_at_a_convolution_is_its_weight_plus_delta(exact_sd1, do, path, rows, columns, form):
    change = getattr(do, form)(rows, columns)
    kernel = dict(exact_sd1.unet.named_parameters())[f"{path}.weight"].detach()
    edited = {f"{path}.weight": kernel + change.dense().view_as(kernel)}
    with do.attached(exact_sd1, do.patch(exact_sd1, "add", f"unet.{path}", change)):
        by_hooks = do.predict(exact_sd1)
    torch.testing.assert_close(by_hooks, do.predict_with(exact_sd1, edited), **CLOSE)


def test_an_add_at_any_linear_layer_is_its_weight_plus_delta(exact_sd1, do):
    change = do.dense(32, 8)
    base = exact_sd1.unet.time_embedding.linear_1.weight.detach()
    with do.attached(exact_sd1, do.patch(exact_sd1, "add", "unet.time_embedding.linear_1", change)):
        by_hooks = do.predict(exact_sd1)
    edited = {"time_embedding.linear_1.weight": base + change.weight}
    torch.testing.assert_close(by_hooks, do.predict_with(exact_sd1, edited), **CLOSE)


def test_layers_that_an_add_cannot_change_are_refused_before_anything_is_attached(slim, do):
    slim.unet.conv_in = nn.Conv2d(4, 8, 3, padding=1, padding_mode="circular")
    slim.unet.conv_out = nn.Conv2d(8, 4, 3, padding=1, groups=2)
    refused = {
        "unet.conv_in": do.dense(8, 36),
        "unet.conv_out": do.dense(4, 36),
        "text_encoder.embeddings.position_embedding": do.dense(16, 16),
    }
    before = do.bones(slim)
    for place, change in refused.items():
        with pytest.raises(BadEdit, match="add works on"):
            Wiring(slim).set([do.patch(slim, "add", place, change)])
    assert do.bones(slim) == before


def test_any_order_of_patches_paints_the_same_picture_bit_for_bit(pipe, do):
    pictures = []
    for order in itertools.permutations(changes(pipe, do)):
        with do.attached(pipe, *order):
            pictures.append(do.predict(pipe))
    assert all(torch.equal(pictures[0], other) for other in pictures[1:])
    assert not torch.equal(pictures[0], do.predict(pipe))


def matrices(size):
    values = st.floats(-4, 4, width=32)
    dense = st.lists(values, min_size=size * size, max_size=size * size).map(
        lambda x: Dense(torch.tensor(x).view(size, size))
    )
    pair = st.lists(values, min_size=2 * size, max_size=2 * size).map(torch.tensor)
    thin = st.tuples(pair, pair).map(lambda f: LowRank(f[0].view(size, 2), f[1].view(2, size)))
    return st.one_of(dense, thin)


@settings(max_examples=60, deadline=None)
@given(st.lists(matrices(3), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_the_sum_of_changes_has_no_order_and_is_their_sum(deltas, random):
    mixed = random.sample(deltas, len(deltas))
    assert torch.equal(total(deltas).dense(), total(mixed).dense())
    expected = torch.stack([delta.dense().double() for delta in deltas]).sum(0)
    torch.testing.assert_close(total(deltas).dense().double(), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("verb", ["input", "output"])
def test_edits_run_in_list_order_after_maps_and_adds(exact_sd1, do, verb):
    point = do.one(exact_sd1, "cross_attn.k")
    seen = []

    def look(x, call):
        seen.append(x)
        return x

    def double(x, call):
        return 2 * x

    def increase(x, call):
        return x + 1

    before, after = Patch(exact_sd1), Patch(exact_sd1)
    for edit in (look, double, look):
        getattr(before, verb)(point, edit)
    for edit in (increase, look):
        getattr(after, verb)(point, edit)
    change = do.square(point) if verb == "input" else do.oblong(point)
    (after.map if verb == "input" else after.add)(point, change)
    with do.attached(exact_sd1, before, after):
        do.predict(exact_sd1)
    x = do.inputs(exact_sd1)["encoder_hidden_states"]
    base = weight(exact_sd1, point)
    first = x + x @ change.weight.T if verb == "input" else x @ base.T + x @ change.weight.T
    torch.testing.assert_close(seen[0], first, **CLOSE)
    assert torch.equal(seen[1], 2 * seen[0])
    assert torch.equal(seen[2], 2 * seen[0] + 1)


def test_the_order_of_edits_is_the_order_of_patches(sd1, do):
    double, increase = (
        do.patch(sd1, "output", "unet.mid", edit) for edit in (lambda x, call: 2 * x, lambda x, call: x + 1)
    )
    both = do.patch(sd1, "output", "unet.mid", lambda x, call: 2 * x + 1)
    pictures = []
    for patches in ([double, increase], [both], [increase, double]):
        with do.attached(sd1, *patches):
            pictures.append(do.predict(sd1))
    assert torch.equal(pictures[0], pictures[1])
    assert not torch.equal(pictures[0], pictures[2])


def test_a_scale_multiplies_maps_and_adds(sd1, do):
    point = do.one(sd1, "cross_attn.k")
    change, other = do.square(point, dtype=torch.float32), do.oblong(point, dtype=torch.float32)
    pictures = []
    for scale, factor in ((0.25, 1.0), (1.0, 0.25)):
        patch = Patch(sd1, scale=scale)
        patch.map("unet.text", Dense(change.weight * factor))
        patch.map(point, Dense(change.weight * factor))
        patch.add(point, Dense(other.weight * factor))
        with do.attached(sd1, patch):
            pictures.append(do.predict(sd1))
    assert torch.equal(*pictures)


@pytest.mark.parametrize("place", ["unet.mid", "unet.skip.0", "unet.text", "key"])
def test_a_scale_mixes_an_edit_with_what_it_edits(sd1, do, place):
    point = do.one(sd1, "cross_attn.k") if place == "key" else place

    def edit(x, call):
        return x.sin() - 0.5

    def by_hand(x, call):
        return x + 0.3 * (edit(x, call) - x)

    pictures = []
    for patch in (do.patch(sd1, "output", point, edit, scale=0.3), do.patch(sd1, "output", point, by_hand)):
        with do.attached(sd1, patch):
            pictures.append(do.predict(sd1))
    assert torch.equal(*pictures)


def test_at_scale_one_the_result_is_the_edit_itself(sd1, do):
    """x + (edit(x) - x) would round: 1e8 + (-1e8 + 0.1) is not 0.1."""
    seen = []
    patch = Patch(sd1)
    patch.output("unet.mid", lambda x, call: torch.full_like(x, 1e8))
    patch.output("unet.mid", lambda x, call: torch.full_like(x, 0.1))
    patch.output("unet.mid", lambda x, call: seen.append(x) or x)
    with do.attached(sd1, patch):
        do.predict(sd1)
    assert torch.equal(seen[0], torch.full_like(seen[0], 0.1))


def test_at_scale_zero_nothing_acts_bit_for_bit(pipe, do):
    plain, ran = do.predict(pipe), []
    patch = Patch(pipe, scale=0)
    patch.step(lambda call: ran.append("step"))
    patch.map("unet.text", do.square(do.one(pipe, "text")))
    patch.add("unet.conv_in", do.dense(8, 36))
    for place in ("unet.mid", "unet.skip.0", "unet.text", do.one(pipe, "cross_attn.out")):
        patch.output(place, lambda x, call: x * math.nan)
    with do.attached(pipe, patch):
        assert torch.equal(do.predict(pipe), plain)
    assert ran == []


def test_an_edit_that_changes_the_shape_is_refused_by_name(sd1, do):
    for place in ("unet.mid", "unet.skip.4", "unet.text", do.one(sd1, "cross_attn.k").name):
        with (
            do.attached(sd1, do.patch(sd1, "output", place, lambda x, call: x[:1])),
            pytest.raises(BadEdit, match=rf"The edit at {place} returned \(1, .*for a tensor of shape \(2, "),
        ):
            do.predict(sd1)
    with (
        do.attached(sd1, do.patch(sd1, "output", "unet.mid", lambda x, call: None)),
        pytest.raises(BadEdit, match=r"The edit at unet\.mid returned NoneType"),
    ):
        do.predict(sd1)


def lora(pipe, *targets):
    """A pipeline's U-Net with a LoRA of random factors, and for each target the base weight and the LoRA's share."""
    from peft import LoraConfig

    torch.manual_seed(5)
    pipe.unet.add_adapter(LoraConfig(r=2, lora_alpha=3, target_modules=list(targets), init_lora_weights=False))
    pipe.unet.double()
    shares = {}
    for path, module in pipe.unet.named_modules():
        if hasattr(module, "base_layer"):
            shares[path] = (module.base_layer.weight.detach(), module.get_delta_weight("default").detach())
    return shares


def test_a_lora_loaded_first_passes_through_the_map(fresh, do):
    pipe, plain = fresh("sd1", dtype=torch.float64), fresh("sd1", dtype=torch.float64)
    shares = lora(pipe, "to_k", "to_v")
    key, value = do.one(pipe, "cross_attn.k"), do.one(pipe, "cross_attn.v", 3)
    change, other = do.square(key), do.oblong(value)
    patch = do.patch(pipe, "map", key, change)
    patch.add(value, other)
    edited = {f"{path}.weight": base + share for path, (base, share) in shares.items()}
    assert all(share.abs().max() > 1e-3 for _, share in shares.values())
    edited[f"{key.path}.weight"] = times_map(edited[f"{key.path}.weight"], change)
    edited[f"{value.path}.weight"] = edited[f"{value.path}.weight"] + other.weight
    with do.attached(pipe, patch):
        torch.testing.assert_close(do.predict(pipe), do.predict_with(plain, edited), **CLOSE)


def test_one_map_of_the_text_edits_what_every_lora_reads(fresh, do):
    pipe, plain = fresh("sd1", dtype=torch.float64), fresh("sd1", dtype=torch.float64)
    change = do.square(do.one(pipe, "text"), size=0.2)
    edited = {
        f"{path}.weight": times_map(base + share, change) if "attn2" in path else base + share
        for path, (base, share) in lora(pipe, "to_k", "to_v").items()
    }
    with do.attached(pipe, do.patch(pipe, "map", "unet.text", change)):
        torch.testing.assert_close(do.predict(pipe), do.predict_with(plain, edited), **CLOSE)


def test_an_add_at_a_convolution_that_a_lora_wraps_is_added_to_both(fresh, do):
    pipe, plain = fresh("sd1", dtype=torch.float64), fresh("sd1", dtype=torch.float64)
    base, share = lora(pipe, "conv_in")["conv_in"]
    change = do.dense(8, 36)
    with do.attached(pipe, do.patch(pipe, "add", "unet.conv_in", change)):
        by_hooks = do.predict(pipe)
    edited = {"conv_in.weight": base + share + change.weight.view_as(base)}
    torch.testing.assert_close(by_hooks, do.predict_with(plain, edited), **CLOSE)


@pytest.mark.parametrize("slice_size", [None, "max"])
def test_attention_processors_come_and_go_under_the_edits(fresh, do, slice_size):
    from diffusers.models.attention_processor import AttnProcessor

    pipe = fresh("sd1", dtype=torch.float64)
    point, out = do.one(pipe, "cross_attn.v"), do.one(pipe, "cross_attn.out", 2)
    change, other = do.square(point), do.square(out)
    patch = do.patch(pipe, "map", point, change)
    patch.map(out, other)
    edited = {f"{p.path}.weight": times_map(weight(pipe, p), e) for p, e in ((point, change), (out, other))}
    by_hand = do.predict_with(pipe, edited)
    with do.attached(pipe, patch):
        if slice_size is None:
            pipe.unet.set_attn_processor(AttnProcessor())
        else:
            pipe.enable_attention_slicing(slice_size)
        torch.testing.assert_close(do.predict(pipe), by_hand, **CLOSE)
