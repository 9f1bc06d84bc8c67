"""What an edit may know about the pass it runs in."""

from __future__ import annotations

import pytest
import torch

from efface_hooks import BadEdit, NotInThisPass, Patch
from efface_hooks.origins import KEPT_ROWS, Origins

CAT, DOG = "a cat", "a dog by a house"


def token_ids(pipe, *prompts):
    return pipe.tokenizer(
        list(prompts), padding="max_length", max_length=16, truncation=True, return_tensors="pt"
    ).input_ids


def seen_in(pipe, do, look, *args, **options):
    """What a look at the call sees in the one step of a picture."""
    patch, seen = do.seeing(pipe, look)
    with do.attached(pipe, patch):
        do.picture(pipe, *args, steps=1, **options)
    return seen[0]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (7, [7, 7, 7]),
        (7.5, [7.5, 7.5, 7.5]),
        (torch.tensor(7), [7, 7, 7]),
        (torch.tensor(7.25), [7.25, 7.25, 7.25]),
        (torch.tensor([7]), [7, 7, 7]),
        (torch.tensor([7, 500, 999]), [7, 500, 999]),
    ],
)
@pytest.mark.parametrize("by_keyword", [True, False])
def test_the_timestep_is_one_number_for_each_sample(sd1, do, given, expected, by_keyword):
    patch, seen = do.seeing(sd1, lambda call: call.timestep)
    inputs = do.inputs(sd1, batch=3)
    args = () if by_keyword else (inputs.pop("sample"), given)
    inputs.pop("timestep")
    with do.attached(sd1, patch), torch.no_grad():
        sd1.unet(*args, **(inputs | {"timestep": given} if by_keyword else inputs))
    assert seen[0].shape == (3,)
    assert seen[0].tolist() == expected


def test_timesteps_of_another_batch_are_refused(sd1, do):
    with do.attached(sd1, Patch(sd1)), pytest.raises(BadEdit, match="2 timesteps for a batch of 3"):
        do.predict(sd1, batch=3, timestep=torch.tensor([1, 2]))


def test_sample_and_text_are_the_very_tensors_that_were_passed(pipe, do):
    inputs = do.inputs(pipe)
    patch, seen = do.seeing(pipe, lambda call: (call.component, call.sample, call.text, call.added))
    with do.attached(pipe, patch):
        do.predict(pipe, **inputs)
    component, sample, text, added = seen[0]
    assert component == "unet"
    assert sample is inputs["sample"]
    assert text is inputs["encoder_hidden_states"]
    assert added == inputs.get("added_cond_kwargs", {})


def test_the_text_of_a_call_is_the_one_before_edits(sd1, do):
    inputs, seen = do.inputs(sd1), []
    patch = do.patch(sd1, "map", "unet.text", do.dense(16, 16, dtype=torch.float32))
    patch.output("unet.text", lambda x, call: 2 * x)
    patch.output("unet.mid", lambda x, call: seen.append(call.text) or x)
    with do.attached(sd1, patch):
        do.predict(sd1, **inputs)
    assert seen[0] is inputs["encoder_hidden_states"]


def test_the_added_conditions_of_sdxl_are_there(sdxl, do):
    added = seen_in(sdxl, do, lambda call: call.added, CAT)
    assert {name: tuple(value.shape) for name, value in added.items()} == {"text_embeds": (2, 24), "time_ids": (2, 6)}


def test_the_noise_schedule_says_how_many_timesteps_there_are(sd1, do, slim):
    from diffusers import DDIMScheduler

    assert seen_in(sd1, do, lambda call: call.num_train_timesteps) == 1000
    slim.scheduler = DDIMScheduler(num_train_timesteps=400)
    assert seen_in(slim, do, lambda call: call.num_train_timesteps) == 400


def test_guided_rows_are_the_negative_prompts_and_then_the_prompts(pipe, do):
    ids, conditional = seen_in(pipe, do, lambda call: (call.ids, call.conditional), CAT, negative_prompt="blue")
    assert torch.equal(ids, token_ids(pipe, "blue", CAT))
    assert conditional.tolist() == [False, True]


def test_without_a_negative_prompt_the_empty_one_stands_in_front(sd1, do):
    ids, conditional = seen_in(sd1, do, lambda call: (call.ids, call.conditional), CAT)
    assert torch.equal(ids, token_ids(sd1, "", CAT))
    assert conditional.tolist() == [False, True]


def test_the_zeros_that_sdxl_takes_for_no_negative_prompt_have_no_ids(sdxl, do):
    assert sdxl.config.force_zeros_for_empty_prompt
    text, ids, conditional = seen_in(sdxl, do, lambda call: (call.text, call.ids, call.conditional), CAT)
    assert text[0].count_nonzero() == 0
    assert ids[0].tolist() == [-1] * 16
    assert torch.equal(ids[1:], token_ids(sdxl, CAT))
    assert conditional.tolist() == [False, True]


def test_without_guidance_every_row_carries_its_prompt(pipe, do):
    ids, conditional = seen_in(pipe, do, lambda call: (call.ids, call.conditional), [CAT, DOG], guidance_scale=1.0)
    assert torch.equal(ids, token_ids(pipe, CAT, DOG))
    assert conditional.tolist() == [True, True]


@pytest.mark.parametrize("negative", [None, ["blue", "a fish"]])
def test_several_prompts_keep_their_order_in_both_halves(pipe, do, negative):
    options = {} if negative is None else {"negative_prompt": negative}
    ids, conditional = seen_in(pipe, do, lambda call: (call.ids, call.conditional), [CAT, DOG], **options)
    assert torch.equal(ids[2:], token_ids(pipe, CAT, DOG))
    if negative is not None:
        assert torch.equal(ids[:2], token_ids(pipe, *negative))
    assert conditional.tolist() == [False, False, True, True]


def test_several_images_of_a_prompt_repeat_its_rows(pipe, do):
    ids, conditional = seen_in(
        pipe,
        do,
        lambda call: (call.ids, call.conditional),
        [CAT, DOG],
        negative_prompt=["", ""],
        num_images_per_prompt=2,
    )
    assert torch.equal(ids, token_ids(pipe, "", "", "", "", CAT, CAT, DOG, DOG))
    assert conditional.tolist() == [False] * 4 + [True] * 4


def test_sdxl_s_rows_are_known_by_the_first_encoder_s_prompt(sdxl, do):
    assert torch.equal(seen_in(sdxl, do, lambda call: call.ids, CAT, prompt_2=DOG)[1:], token_ids(sdxl, CAT))


def embeddings(pipe, prompt, *, negative=None):
    """Arguments with which a pipeline takes embeddings in place of prompts."""
    if hasattr(pipe, "text_encoder_2"):
        made = pipe.encode_prompt(prompt, negative_prompt=negative, do_classifier_free_guidance=True)
        names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    else:
        made = pipe.encode_prompt(prompt, "cpu", 1, True, negative)
        names = ("prompt_embeds", "negative_prompt_embeds")
    return dict(zip(names, made, strict=True))


def test_embeddings_made_before_attaching_have_no_ids(pipe, do):
    given = embeddings(pipe, CAT, negative="blue")
    ids, conditional = seen_in(pipe, do, lambda call: (call.ids, call.conditional), None, **given)
    assert ids is None
    assert conditional is None


def test_embeddings_made_while_attached_have_ids(pipe, do):
    patch, seen = do.seeing(pipe, lambda call: (call.ids, call.conditional))
    with do.attached(pipe, patch):
        do.picture(pipe, None, steps=1, **embeddings(pipe, CAT, negative="blue"))
    ids, conditional = seen[0]
    assert torch.equal(ids, token_ids(pipe, "blue", CAT))
    assert conditional.tolist() == [False, True]


def test_ids_are_unknown_when_one_row_is(sd1, do):
    before = embeddings(sd1, CAT)["prompt_embeds"]
    patch, seen = do.seeing(sd1, lambda call: (call.ids, call.conditional))
    with do.attached(sd1, patch):
        known = embeddings(sd1, DOG)["prompt_embeds"]
        do.picture(sd1, None, steps=1, prompt_embeds=torch.cat([known, before]), guidance_scale=1.0)
    assert seen[0] == (None, None)


def test_prompts_that_were_encoded_one_by_one_are_no_negative_prompts(sd1, do):
    """Newest first, as a guided batch is, but with latents of their own: no row is unconditional."""
    patch, seen = do.seeing(sd1, lambda call: (call.ids, call.conditional))
    with do.attached(sd1, patch):
        cat, dog = (sd1.encode_prompt(prompt, "cpu", 1, False)[0] for prompt in (CAT, DOG))
        do.picture(sd1, None, steps=1, prompt_embeds=torch.cat([dog, cat]), guidance_scale=1.0)
    ids, conditional = seen[0]
    assert torch.equal(ids, token_ids(sd1, DOG, CAT))
    assert conditional is None


def test_which_rows_are_conditional_is_unknown_when_the_negative_prompt_came_first(sd1, do):
    patch, seen = do.seeing(sd1, lambda call: call.conditional)
    with do.attached(sd1, patch):
        negative = sd1.encode_prompt("blue", "cpu", 1, False)[0]
        do.picture(sd1, CAT, steps=1, negative_prompt_embeds=negative)
    assert seen == [None]


def test_ids_and_conditional_are_found_once_for_each_prompt(pipe, do):
    patch, seen = do.seeing(pipe, lambda call: (call.ids, call.conditional))
    with do.attached(pipe, patch):
        do.picture(pipe, CAT, steps=3)
    assert all(ids is seen[0][0] and conditional is seen[0][1] for ids, conditional in seen)
    assert len(seen) == 3


def test_embeddings_changed_in_place_are_other_embeddings(sd1, do):
    patch, seen = do.seeing(sd1, lambda call: call.ids)
    with do.attached(sd1, patch):
        with torch.no_grad():
            text = sd1.text_encoder(token_ids(sd1, CAT, DOG))[0]
        do.predict(sd1, encoder_hidden_states=text)
        text.mul_(2)
        do.predict(sd1, encoder_hidden_states=text)
    assert torch.equal(seen[0], token_ids(sd1, CAT, DOG))
    assert seen[1] is None


def test_what_is_computed_per_prompt_runs_once_for_all_steps(pipe, do):
    runs = []

    def width(call):
        runs.append(call.text)
        return call.text.shape[-1]

    patch, seen = do.seeing(pipe, lambda call: call.per_prompt(width))
    with do.attached(pipe, patch):
        do.picture(pipe, CAT, steps=3)
        assert len(runs) == 1
        do.picture(pipe, DOG, steps=2)
    assert len(runs) == 2
    assert seen == [pipe.unet.config.cross_attention_dim] * 5


def test_what_is_computed_per_prompt_is_kept_for_each_function(sd1, do):
    def one(call):
        return 1

    def nothing(call):
        runs.append(call)

    runs = []
    patch, seen = do.seeing(sd1, lambda call: (call.per_prompt(one), call.per_prompt(nothing), call.per_prompt(one)))
    with do.attached(sd1, patch):
        do.picture(sd1, CAT, steps=2)
    assert seen == [(1, None, 1)] * 2
    assert len(runs) == 1


def test_what_is_computed_per_prompt_is_computed_anew_after_the_patches_of_a_text_encoder_changed(sd1, do):
    runs = []
    look, _ = do.seeing(sd1, lambda call: call.per_prompt(runs.append))
    edit = do.patch(sd1, "output", "text_encoder.layers.0.mlp.fc2", lambda x, call: x)
    text = do.inputs(sd1)["encoder_hidden_states"]
    with do.attached(sd1, look) as wiring:
        do.predict(sd1, encoder_hidden_states=text)
        wiring.set([edit])
        wiring.set([look])
        do.predict(sd1, encoder_hidden_states=text)
    assert len(runs) == 2


def test_what_was_computed_for_the_latest_prompts_is_kept(sd1, do):
    runs = []
    look, _ = do.seeing(sd1, lambda call: call.per_prompt(runs.append))
    texts = [do.inputs(sd1, seed=seed)["encoder_hidden_states"] for seed in range(10)]
    with do.attached(sd1, look):
        for text in texts:
            for _ in range(2):
                do.predict(sd1, encoder_hidden_states=text)
        assert len(runs) == 10
        do.predict(sd1, encoder_hidden_states=texts[-2])
    assert len(runs) == 10


def test_the_rows_that_were_not_made_for_longest_are_forgotten_first():
    origins, states = Origins(), torch.arange(1, KEPT_ROWS + 2, dtype=torch.float32).view(-1, 1, 1)

    def made(rows):
        origins.record(
            "text_encoder", torch.tensor(rows).view(-1, 1), (states[rows],), torch.nn.Identity(), torch.float32
        )

    def known(row):
        ids = origins.cache(states[[row]], states[[row]]).ids
        return None if ids is None else ids.item()

    made(list(range(KEPT_ROWS)))
    made([0])
    made([KEPT_ROWS])
    assert [known(row) for row in (0, 1, 2, KEPT_ROWS)] == [0, None, 2, KEPT_ROWS]


def test_memo_is_shared_within_a_pass_and_fresh_for_the_next(pipe, do):
    seen = []

    def remember(x, call):
        seen.append(call.memo.get("from skip 1"))
        call.memo.setdefault("from skip 1", float(call.timestep[0]))
        return x

    patch = Patch(pipe)
    patch.output("unet.skip.1", remember)  # taken in by the last up block
    patch.output("unet.mid", remember)  # taken in by the first
    patch.output(do.one(pipe, "cross_attn.out"), remember)
    with do.attached(pipe, patch):
        do.picture(pipe, steps=2)
    first, second = seen[1], seen[4]
    assert seen == [None, first, first, None, second, second]
    assert first > second


def test_a_text_encoder_s_pass_has_ids_and_nothing_of_the_u_net(pipe, do):
    seen = []

    def look(x, call):
        seen.append((call.component, call.ids))
        for name in ("sample", "timestep", "num_train_timesteps", "text", "added", "conditional"):
            with pytest.raises(NotInThisPass, match="a U-Net pass only; this is a pass of text_encoder"):
                getattr(call, name)
        with pytest.raises(NotInThisPass):
            call.per_prompt(print)
        return x

    with do.attached(pipe, do.patch(pipe, "output", do.one(pipe, "text_encoder.fc2"), look)):
        pipe.text_encoder(token_ids(pipe, CAT))
        pipe.text_encoder(input_ids=token_ids(pipe, DOG))
    assert [component for component, _ in seen] == ["text_encoder", "text_encoder"]
    assert torch.equal(torch.cat([ids for _, ids in seen]), token_ids(pipe, CAT, DOG))


def test_not_in_this_pass_names_what_was_asked_for(sd1, do):
    def look(x, call):
        return x * call.timestep

    with (
        do.attached(sd1, do.patch(sd1, "output", do.one(sd1, "text_encoder.fc2"), look)),
        pytest.raises(NotInThisPass, match=r"call\.timestep exists in a U-Net pass only"),
    ):
        do.picture(sd1)
