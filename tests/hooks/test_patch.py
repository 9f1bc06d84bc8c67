"""Patches: what each place takes, and that nothing reaches the model before it is asked to."""

from __future__ import annotations

import math

import pytest
import torch

from efface_hooks import BadEdit, Dense, LowRank, Patch, UnknownPoint, points
from efface_hooks.delta import total

VERBS = ("map", "add", "input", "output", "step")
ALLOWED = {
    "step": {"step"},
    "text": {"map", "output"},
    "skip": {"output"},
    "mid": {"output"},
    "cross_attn.k": {"map", "add", "input", "output"},
    "self_attn.out": {"map", "add", "input", "output"},
    "text_encoder.fc2": {"map", "add", "input", "output"},
    "weight": {"add"},
}


def place(pipe, kind, do):
    return "unet.conv_in" if kind == "weight" else do.one(pipe, kind)


def fitting(pipe, verb, kind, do):
    """Something that the verb takes, of the right shape where the place has one."""
    if verb in ("input", "output"):
        return lambda x, call: x
    if verb == "step":
        return lambda call: None
    rows, columns = (8, 36) if kind == "weight" else (2, 2)
    if kind not in ("weight", "step", "skip", "mid"):
        point = do.one(pipe, kind)
        rows, columns = point.in_features if verb == "map" else point.out_features, point.in_features
    return do.dense(rows, columns)


@pytest.mark.parametrize("kind", ALLOWED)
@pytest.mark.parametrize("verb", VERBS)
def test_every_kind_of_place_takes_its_verbs_and_no_others(sd1, do, kind, verb):
    patch = Patch(sd1)
    point, what = place(sd1, kind, do), fitting(sd1, verb, kind, do)
    if verb == "step":
        if kind == "step":
            patch.step(what)
            assert [(edit.point.name, edit.verb, edit.what) for edit in patch.edits] == [("unet.step", "step", what)]
        return
    if verb in ALLOWED[kind]:
        getattr(patch, verb)(point, what)
        assert [(edit.verb, edit.what) for edit in patch.edits] == [(verb, what)]
    else:
        with pytest.raises(BadEdit):
            getattr(patch, verb)(point, what)
        assert patch.edits == []


def test_a_refused_verb_is_told_which_ones_the_place_takes(sd1):
    with pytest.raises(BadEdit, match=r"unet\.text \(kind text\) takes map, output, not input"):
        Patch(sd1).input("unet.text", lambda x, call: x)
    with pytest.raises(BadEdit, match=r"unet\.skip\.3 \(kind skip\) takes output, not input"):
        Patch(sd1).input("unet.skip.3", lambda x, call: x)


@pytest.mark.parametrize("verb", ["map", "add"])
def test_a_verb_of_another_place_is_told_so_whatever_the_matrix(sd1, do, verb):
    for point in ("unet.skip.0", "unet.mid", "unet.step"):
        with pytest.raises(BadEdit, match=rf"{point} \(kind \w+\) takes (output|step), not {verb}"):
            getattr(Patch(sd1), verb)(point, do.dense(3, 5))


def test_edits_are_kept_in_the_order_they_were_asked_for(sd1, do):
    patch = Patch(sd1, scale=0.5)
    patch.output("unet.mid", double := lambda x, call: 2 * x)
    patch.map("unet.text", change := do.dense(16, 16))
    assert [(edit.point.name, edit.verb, edit.what, edit.scale) for edit in patch.edits] == [
        ("unet.mid", "output", double, 0.5),
        ("unet.text", "map", change, 0.5),
    ]


def test_a_point_is_given_by_name_or_as_the_point_itself(sd1, do):
    point = do.one(sd1, "cross_attn.v", 3)
    by_name, by_point = Patch(sd1), Patch(sd1)
    by_name.output(point.name, print)
    by_point.output(point, print)
    assert by_name.edits == by_point.edits


def test_a_patch_shows_its_pipeline_which_cannot_be_exchanged(pipe):
    patch = Patch(pipe)
    assert patch.pipe is pipe
    with pytest.raises(AttributeError):
        patch.pipe = None


def test_a_patch_lists_the_points_of_its_pipeline(pipe):
    assert Patch(pipe).points == points(pipe)


@pytest.mark.parametrize(
    ("verb", "shape"), [("map", (8, 16)), ("map", (8, 8)), ("map", (16, 8)), ("add", (16, 8)), ("add", (16, 16))]
)
def test_a_misshapen_matrix_is_refused_with_both_shapes(sd1, do, verb, shape):
    point = do.one(sd1, "cross_attn.k")  # 16 -> 8
    wanted = (16, 16) if verb == "map" else (8, 16)
    for change in (do.dense(*shape), do.lowrank(*shape)):
        with pytest.raises(BadEdit) as refusal:
            getattr(Patch(sd1), verb)(point, change)
        assert str(refusal.value) == f"{point.name} takes a change of shape {wanted}, not {shape}"


def test_a_convolution_takes_a_matrix_over_channels_and_kernel(sd1, do):
    Patch(sd1).add("unet.conv_in", do.dense(8, 4 * 3 * 3))
    with pytest.raises(BadEdit, match=r"\(8, 36\), not \(8, 4\)"):
        Patch(sd1).add("unet.conv_in", do.dense(8, 4))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_matrix_that_is_not_finite_is_refused(sd1, do, bad):
    point = do.one(sd1, "cross_attn.k")
    good = torch.zeros(16, 2)
    spoilt = good.clone()
    spoilt[3, 1] = bad
    for change in (LowRank(spoilt, good.T), LowRank(good, spoilt.T), Dense(spoilt @ torch.zeros(2, 16) + spoilt[3, 1])):
        with pytest.raises(BadEdit, match=f"{point.name} has entries that are not finite"):
            Patch(sd1).map(point, change)


@pytest.mark.parametrize("what", [torch.zeros(16, 16), 0.5, None])
def test_a_map_takes_nothing_but_a_matrix_object(sd1, what):
    with pytest.raises(BadEdit, match="takes a LowRank or Dense, not"):
        Patch(sd1).map("unet.text", what)


@pytest.mark.parametrize("verb", ["input", "output"])
def test_a_tensor_edit_is_a_function(sd1, do, verb):
    with pytest.raises(BadEdit, match=f"{verb} at .*to_k takes a callable, not Dense"):
        getattr(Patch(sd1), verb)(do.one(sd1, "cross_attn.k"), do.dense(16, 16))
    with pytest.raises(BadEdit, match=r"step at unet\.step takes a callable, not NoneType"):
        Patch(sd1).step(None)


@pytest.mark.parametrize("scale", [math.nan, math.inf, -math.inf, -0.5, True, "1", None, 1j])
def test_a_scale_is_a_finite_number_of_at_least_zero(sd1, scale):
    with pytest.raises(BadEdit, match="finite number >= 0"):
        Patch(sd1, scale=scale)


@pytest.mark.parametrize("scale", [0, 0.5, 2])
def test_a_scale_may_be_whole_or_zero_or_above_one(sd1, scale):
    assert Patch(sd1, scale=scale).scale == float(scale)
    assert isinstance(Patch(sd1, scale=scale).scale, float)


def test_an_unknown_place_is_refused_with_the_nearest_there_is(sd1):
    with pytest.raises(UnknownPoint, match=r"'unet\.middle'.*mean 'unet\.mid'"):
        Patch(sd1).output("unet.middle", lambda x, call: x)


def test_an_extra_point_of_a_plugin_is_editable(sd1):
    from efface_hooks import HookPoint

    mine = HookPoint("unet.out", "last", "unet", "conv_out", 0, 0, 72, 4)
    patch = Patch(sd1, extra=[mine])
    patch.output("unet.out", lambda x, call: x)
    assert patch.edits[0].point.path == "conv_out"


def test_nothing_is_on_the_model_before_it_is_set(pipe, do):
    before, plain = do.bones(pipe), do.picture(pipe)
    do.every_verb(pipe)
    assert do.bones(pipe) == before
    assert torch.equal(do.picture(pipe), plain)


def test_factors_of_different_rank_are_refused():
    with pytest.raises(ValueError, match=r"up \(4, 2\) and down \(3, 4\) have different ranks"):
        LowRank(torch.zeros(4, 2), torch.zeros(3, 4))


@pytest.mark.parametrize("matrix", [torch.zeros(4), torch.zeros(2, 2, dtype=torch.int64), torch.zeros(1, 2, 2)])
def test_only_floating_point_matrices_are_changes(matrix):
    with pytest.raises(ValueError, match="must be a floating-point matrix"):
        Dense(matrix)
    with pytest.raises(ValueError, match="up must be a floating-point matrix"):
        LowRank(matrix, torch.zeros(2, 2))


def test_a_change_knows_its_shape_rank_and_matrix(do):
    thin = do.lowrank(5, 7)
    assert (thin.shape, thin.rank) == ((5, 7), 2)
    assert torch.equal(thin.dense(), thin.up @ thin.down)
    assert (Dense(torch.eye(3)).shape, Dense(torch.eye(3)).rank) == ((3, 3), 3)


def test_no_changes_sum_to_none_and_one_to_itself(do):
    assert total([]) is None
    thin = do.lowrank(4, 4)
    assert total([thin]) is thin


def test_thin_changes_stay_thin_in_their_sum(do):
    both = total([do.lowrank(5, 7, 1), do.lowrank(5, 7, 2)])
    assert isinstance(both, LowRank)
    assert (both.rank, both.shape) == (4, (5, 7))
    expected = do.lowrank(5, 7, 1).dense() + do.lowrank(5, 7, 2).dense()
    torch.testing.assert_close(both.dense(), expected, rtol=0, atol=1e-14)


def test_thin_and_full_changes_sum_to_a_full_one(do):
    both = total([do.lowrank(5, 7, 1), do.dense(5, 7, 2), do.dense(5, 7, 3)])
    expected = do.lowrank(5, 7, 1).dense() + do.dense(5, 7, 2).weight + do.dense(5, 7, 3).weight
    torch.testing.assert_close(both.dense(), expected, rtol=0, atol=1e-14)
