"""Hook points: what they are called, in which order they come, and what is said about a name that is none."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from efface_hooks import HookPoint, UnknownPoint, UnsupportedPipeline, find, points
from efface_hooks.point import skip_slices, text_readers

SKIPS = {"sd1": 12, "sd2": 12, "sdxl": 9}
ROLES = {"to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "out"}


def family(pipe):
    if hasattr(pipe, "text_encoder_2"):
        return "sdxl"
    return "sd2" if pipe.unet.config.use_linear_projection else "sd1"


def names(found):
    return [point.name for point in found]


def test_projections_are_named_by_the_module_paths_of_diffusers(pipe):
    paths = dict(pipe.unet.named_modules())
    by_hand = {
        f"unet.{path}.{tail}": f"{'cross_attn' if path.endswith('attn2') else 'self_attn'}.{role}"
        for path in paths
        if path.endswith((".attn1", ".attn2"))
        for tail, role in ROLES.items()
    }
    found = {point.name: point.kind for point in points(pipe, "cross_attn.*", "self_attn.*")}
    assert found == by_hand
    assert all(point.name == f"unet.{point.path}" for point in points(pipe, "cross_attn.*", "self_attn.*"))


def test_an_often_written_name_of_sd1_stays_what_it_is(sd1):
    point = find(sd1, "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k")
    assert (point.kind, point.component, point.depth) == ("cross_attn.k", "unet", 0)
    assert (point.in_features, point.out_features) == (16, 8)


def test_text_encoder_layers_have_one_public_form_in_every_encoder(sdxl):
    tails = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2"]
    by_hand = [
        f"{encoder}.layers.{layer}.{tail}"
        for encoder in ("text_encoder", "text_encoder_2")
        for layer in range(3)
        for tail in tails
    ]
    assert names(points(sdxl, "text_encoder.*")) == by_hand


def test_the_public_form_leads_to_the_module(sdxl, do):
    first, second = (find(sdxl, f"{encoder}.layers.1.mlp.fc2") for encoder in ("text_encoder", "text_encoder_2"))
    assert do.at(sdxl, first) is sdxl.text_encoder.get_submodule("encoder.layers")[1].mlp.fc2
    assert do.at(sdxl, second) is sdxl.text_encoder_2.get_submodule("text_model.encoder.layers")[1].mlp.fc2
    assert (first.kind, second.kind, first.depth) == ("text_encoder.fc2", "text_encoder.fc2", 1)


def test_points_come_in_the_order_in_which_a_picture_reaches_them(pipe, do):
    reached = []

    def note(point):
        return do.at(pipe, point).register_forward_pre_hook(lambda module, args: reached.append(point.name))

    handles = [note(point) for point in points(pipe) if point.path]
    do.picture(pipe, steps=1, guidance_scale=1.0)
    for handle in handles:
        handle.remove()
    assert reached == [point.name for point in points(pipe) if point.path]


def test_places_that_are_no_module_stand_where_they_act(pipe):
    kinds = [point.kind for point in points(pipe)]
    parts = [point.name.split(".")[1] for point in points(pipe) if point.component == "unet"]
    assert [parts.index(part) for part in ("step", "text")] == [0, 1]
    order = [parts.index(part) for part in ("text", "down_blocks", "skip", "mid_block", "mid", "up_blocks")]
    assert order == sorted(order)
    assert [kinds.count(kind) for kind in ("step", "text", "mid")] == [1, 1, 1]


def test_order_counts_all_points_of_the_pipeline(pipe):
    assert [point.order for point in points(pipe)] == list(range(len(points(pipe))))
    middle = points(pipe, "mid")[0]
    assert points(pipe)[middle.order] == middle


def test_there_are_as_many_skips_as_the_family_has(pipe):
    count = SKIPS[family(pipe)]
    assert names(points(pipe, "skip")) == [f"unet.skip.{index}" for index in range(count)]
    assert [point.depth for point in points(pipe, "skip")] == list(range(count))


def test_skips_and_mid_have_the_channels_of_the_tensors_that_enter_the_decoder(pipe, do):
    skips, middle = [], []

    def look(block, args, kwargs):
        middle.append(kwargs["hidden_states"].shape[1])
        skips[:0] = [skip.shape[1] for skip in kwargs["res_hidden_states_tuple"]]

    handles = [block.register_forward_pre_hook(look, with_kwargs=True) for block in pipe.unet.up_blocks]
    do.predict(pipe)
    for handle in handles:
        handle.remove()
    assert [point.in_features for point in points(pipe, "skip")] == skips
    assert [point.out_features for point in points(pipe, "skip")] == skips
    assert points(pipe, "mid")[0].in_features == middle[0]


def test_up_blocks_take_the_skips_from_the_last_to_the_first(sd1, sdxl):
    assert skip_slices(sd1.unet) == [(9, 12), (6, 9), (3, 6), (0, 3)]
    assert skip_slices(sdxl.unet) == [(6, 9), (3, 6), (0, 3)]


def test_features_are_those_of_the_weights(pipe, do):
    listed = [point for point in points(pipe) if point.path]
    shapes = [tuple(do.at(pipe, point).weight.shape) for point in listed]
    assert [(point.out_features, point.in_features) for point in listed] == shapes


def test_text_is_as_wide_as_what_the_keys_read(pipe):
    assert points(pipe, "text")[0].in_features == pipe.unet.config.cross_attention_dim


def test_depth_counts_the_attentions_from_shallow_to_deep(pipe):
    for kind in ("cross_attn.k", "cross_attn.out", "self_attn.v"):
        assert [point.depth for point in points(pipe, kind)] == list(range(len(points(pipe, kind))))


def test_one_layer_s_projections_share_a_depth(pipe):
    layers = {point.path.split(".to_")[0]: set() for point in points(pipe, "cross_attn.*")}
    for point in points(pipe, "cross_attn.*"):
        layers[point.path.split(".to_")[0]].add(point.depth)
    assert [len(depths) for depths in layers.values()] == [1] * len(layers)


def test_the_readers_of_the_text_are_the_keys_and_values_of_cross_attention(pipe):
    assert text_readers(pipe.unet) == [point.path for point in points(pipe, "cross_attn.k", "cross_attn.v")]


def test_kinds_choose_points(pipe):
    assert {point.kind for point in points(pipe, "cross_attn.k", "mid")} == {"cross_attn.k", "mid"}
    chosen = points(pipe, "cross_attn.k", "mid")
    assert chosen == [point for point in points(pipe) if point.kind in ("cross_attn.k", "mid")]


def test_a_star_chooses_all_kinds_with_that_beginning(pipe):
    assert {point.kind for point in points(pipe, "cross_attn.*")} == {f"cross_attn.{role}" for role in ROLES.values()}
    assert not any(point.kind.startswith("self_attn") for point in points(pipe, "cross_attn.*"))


def test_an_unknown_kind_is_refused_with_the_kinds_there_are(sd1):
    with pytest.raises(UnknownPoint, match=r"'cross_attn\.x'.*it has: cross_attn\.k, .*text_encoder\.fc2"):
        points(sd1, "mid", "cross_attn.x")
    with pytest.raises(UnknownPoint, match=r"'norm\.\*'"):
        points(sd1, "norm.*")


def test_an_unknown_name_is_refused_with_names_there_are_and_the_nearest(sd1):
    with pytest.raises(UnknownPoint, match=r"'unet\.skip\.12'.*it has: text_encoder.*in all.*mean 'unet\.skip\.2'"):
        find(sd1, "unet.skip.12")


def test_a_listed_point_is_found_by_its_name(pipe):
    assert [find(pipe, point.name) for point in points(pipe, "skip", "mid")] == points(pipe, "skip", "mid")


def test_any_module_with_a_weight_is_an_unlisted_point(pipe):
    point = find(pipe, "unet.conv_in")
    assert point == HookPoint("unet.conv_in", "weight", "unet", "conv_in", -1, -1, 4 * 3 * 3, 8)
    assert point.name not in names(points(pipe))


@pytest.mark.parametrize(
    "name",
    ["unet", "unet.", "unet.down_blocks.0", "unet.conv_norm_out", "vae.decoder.conv_in", "unet.nowhere", "scheduler.x"],
)
def test_what_has_no_matrix_or_belongs_to_no_edited_part_is_no_point(sd1, name):
    with pytest.raises(UnknownPoint, match=name):
        find(sd1, name)


def test_a_second_path_to_a_listed_module_is_the_listed_point(sdxl):
    assert find(sdxl, "text_encoder.encoder.layers.0.mlp.fc2") == find(sdxl, "text_encoder.layers.0.mlp.fc2")
    assert find(sdxl, "text_encoder_2.text_model.encoder.layers.0.mlp.fc2").kind == "text_encoder.fc2"


def test_a_lora_changes_neither_names_nor_shapes(fresh):
    from peft import LoraConfig

    pipe = fresh("sd1")
    before = points(pipe)
    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_k", "to_out.0"]))
    assert points(pipe) == before


def test_plugins_add_points_after_the_pipeline_s_own(sd1):
    mine = HookPoint("unet.conv_out", "last", "unet", "conv_out", 0, 0, 72, 4)
    own = points(sd1)
    assert points(sd1, extra=[mine]) == [*own, replace(mine, order=len(own))]
    assert names(points(sd1, "last", extra=[mine])) == ["unet.conv_out"]
    assert find(sd1, "unet.conv_out", extra=[mine]).kind == "last"


@pytest.mark.parametrize("nothing", [SimpleNamespace(), SimpleNamespace(unet=None, transformer=nn.Linear(2, 2))])
def test_a_pipeline_without_a_u_net_is_refused(nothing):
    with pytest.raises(UnsupportedPipeline, match="SimpleNamespace has no unet"):
        points(nothing)


def test_a_u_net_of_another_build_is_refused():
    with pytest.raises(UnsupportedPipeline, match="Linear has no conv_in"):
        points(SimpleNamespace(unet=nn.Linear(2, 2)))


def test_a_u_net_whose_decoder_takes_other_skips_than_its_encoder_makes_is_refused(slim):
    del slim.unet.up_blocks[0].resnets[1]
    with pytest.raises(UnsupportedPipeline, match="makes 2 skip connections and its decoder takes 1"):
        points(slim)


def test_looking_for_points_changes_nothing(pipe, do):
    before = do.bones(pipe), torch.random.get_rng_state().tolist()
    points(pipe)
    assert (do.bones(pipe), torch.random.get_rng_state().tolist()) == before
