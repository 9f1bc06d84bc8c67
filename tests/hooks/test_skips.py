"""Skip connections and the mid tensor: compared with a U-Net forward written out by hand."""

from __future__ import annotations

import pytest
import torch

from efface_hooks import Patch, points


def double(x, call=None):
    return 2 * x + 0.125


@torch.no_grad()
def by_hand(unet, given, skip_edits=None, mid_edit=None):
    """UNet2DConditionModel.forward in the open: what leaves the encoder is edited, then the decoder runs."""
    sample, text = given["sample"], given["encoder_hidden_states"]
    embedding = unet.time_embedding(unet.get_time_embed(sample=sample, timestep=given["timestep"]))
    added = given.get("added_cond_kwargs")
    if added is not None:
        embedding = embedding + unet.get_aug_embed(emb=embedding, encoder_hidden_states=text, added_cond_kwargs=added)

    def run(block, x, **more):
        reads_text = getattr(block, "has_cross_attention", False)
        return block(hidden_states=x, temb=embedding, **({"encoder_hidden_states": text} if reads_text else {}), **more)

    x = unet.conv_in(sample)
    skips = [x]
    for block in unet.down_blocks:
        x, more = run(block, x)
        skips += more
    skips = list(map(torch.add, skips, given.get("down_block_additional_residuals") or [torch.zeros(())] * len(skips)))
    x = unet.mid_block(x, embedding, encoder_hidden_states=text) + given.get("mid_block_additional_residual", 0)
    for index, edit in (skip_edits or {}).items():
        skips[index] = edit(skips[index])
    x = x if mid_edit is None else mid_edit(x)
    for block in unet.up_blocks:
        taken = tuple(skips[-len(block.resnets) :])
        del skips[-len(block.resnets) :]
        x = run(block, x, res_hidden_states_tuple=taken, upsample_size=None)
    return unet.conv_out(unet.conv_act(unet.conv_norm_out(x)))


def residuals(pipe, do):
    """What a ControlNet adds: one tensor for each skip and one for the mid block."""
    shapes, middle = [], []

    def look(block, args, kwargs):
        middle.append(kwargs["hidden_states"].shape)
        shapes[:0] = [skip.shape for skip in kwargs["res_hidden_states_tuple"]]

    handles = [block.register_forward_pre_hook(look, with_kwargs=True) for block in pipe.unet.up_blocks]
    do.predict(pipe)
    for handle in handles:
        handle.remove()
    draw = torch.Generator().manual_seed(3)
    return {
        "down_block_additional_residuals": [torch.randn(shape, generator=draw) for shape in shapes],
        "mid_block_additional_residual": torch.randn(middle[0], generator=draw),
    }


def test_the_forward_by_hand_is_the_forward(pipe, do):
    assert torch.equal(by_hand(pipe.unet, do.inputs(pipe)), do.predict(pipe))


def test_an_edit_of_a_skip_changes_that_skip_alone(pipe, do):
    given = do.inputs(pipe)
    plain = do.predict(pipe)
    pictures = [plain]
    for point in points(pipe, "skip"):
        with do.attached(pipe, do.patch(pipe, "output", point, double)):
            edited = do.predict(pipe)
        assert torch.equal(edited, by_hand(pipe.unet, given, {point.depth: double}))
        assert not any(torch.equal(edited, other) for other in pictures)
        pictures.append(edited)


def test_an_edit_of_the_mid_changes_the_tensor_that_enters_the_decoder(pipe, do):
    with do.attached(pipe, do.patch(pipe, "output", "unet.mid", double)):
        edited = do.predict(pipe)
    assert torch.equal(edited, by_hand(pipe.unet, do.inputs(pipe), mid_edit=double))
    assert not torch.equal(edited, do.predict(pipe))


def test_all_skips_and_the_mid_are_edited_together(pipe, do):
    count = len(points(pipe, "skip"))
    edits = {index: (lambda x, call=None, index=index: x * index) for index in range(count)}
    patch = Patch(pipe)
    patch.output("unet.mid", double)
    for index, edit in edits.items():
        patch.output(f"unet.skip.{index}", edit)
    with do.attached(pipe, patch):
        edited = do.predict(pipe)
    assert torch.equal(edited, by_hand(pipe.unet, do.inputs(pipe), edits, double))


def test_edits_see_what_a_controlnet_added(pipe, do):
    given = do.inputs(pipe) | residuals(pipe, do)
    unaided = do.predict(pipe)
    last = len(points(pipe, "skip")) - 1
    for skips, middle in (
        ({0: double}, None),
        ({last: double}, None),
        ({}, double),
        ({0: double, last: double}, double),
    ):
        patch = Patch(pipe)
        for index, edit in skips.items():
            patch.output(f"unet.skip.{index}", edit)
        if middle is not None:
            patch.output("unet.mid", middle)
        with do.attached(pipe, patch):
            edited = do.predict(pipe, **given)
        assert torch.equal(edited, by_hand(pipe.unet, given, skips, middle))
    assert not torch.equal(do.predict(pipe, **given), unaided)


def test_an_edit_of_the_first_skip_leaves_the_encoder_alone(pipe, do):
    entered = []
    handle = pipe.unet.down_blocks[0].register_forward_pre_hook(
        lambda block, args, kwargs: entered.append(kwargs["hidden_states"]), with_kwargs=True
    )
    do.predict(pipe)
    with do.attached(pipe, do.patch(pipe, "output", "unet.skip.0", double)):
        do.predict(pipe)
    handle.remove()
    assert torch.equal(*entered)


def test_a_skip_edit_is_given_the_skip_and_the_call(pipe, do):
    seen = []
    patch, calls = do.seeing(pipe, lambda call: call)
    patch.output("unet.skip.1", lambda x, call: seen.append((x.shape, call)) or x)
    with do.attached(pipe, patch):
        do.predict(pipe)
    assert seen == [(torch.Size([2, do.one(pipe, "skip", 1).in_features, 8, 8]), calls[0])]


def test_an_up_block_may_be_called_by_position(slim, do):
    block, given, outputs = slim.unet.up_blocks[0], [], []
    block.register_forward_pre_hook(lambda module, args, kwargs: given.append((args, kwargs)), with_kwargs=True)
    block.register_forward_hook(lambda module, args, output: outputs.append(output))

    def repeat_by_position(call):
        named = dict(given[0][1])
        names = ("hidden_states", "res_hidden_states_tuple", "temb")
        block(*[named.pop(name) for name in names], **named)

    do.predict(slim)
    edits = do.patch(slim, "output", "unet.skip.0", double)
    edits.output("unet.mid", double)
    edits.step(repeat_by_position)
    with do.attached(slim, edits):
        do.predict(slim)
    assert [len(args) for args, _ in given] == [0, 3, 0]
    plain, by_position, by_keyword = outputs
    assert torch.equal(by_position, by_keyword)
    assert not torch.equal(by_position, plain)


@pytest.mark.parametrize("scales", [{"s1": 0.9, "s2": 0.2, "b1": 1.2, "b2": 1.4}])
def test_freeu_works_on_the_edited_skip(fresh, do, scales):
    pipe = fresh("sd1")
    pipe.enable_freeu(**scales)
    for index in (0, 7, 11):
        with do.attached(pipe, do.patch(pipe, "output", f"unet.skip.{index}", double)):
            edited = do.predict(pipe)
        assert torch.equal(edited, by_hand(pipe.unet, do.inputs(pipe), {index: double}))
