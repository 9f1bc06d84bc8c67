"""No drift: a picture is a function of prompt, seed and settings, whatever was painted before it."""

from __future__ import annotations

import diffusers
import pytest
import torch

from efface_hooks import Patch

SCHEDULERS = {
    "DDIMScheduler": {},
    "PNDMScheduler": {"skip_prk_steps": True},
    "LMSDiscreteScheduler": {},
    "EulerDiscreteScheduler": {},
    "DPMSolverMultistepScheduler": {},
}
PAINTINGS = [(20, "a cat"), (30, "a dog"), (50, "a house")]


def windowed(pipe, do):
    """Edits that depend on all that a call tells: timestep, prompt, rows, and one shared side computation."""

    def late(call):
        return (call.timestep < call.num_train_timesteps // 2).view(-1, 1, 1, 1)

    def skip(x, call):
        call.memo.setdefault("late", late(call))
        return torch.where(call.memo["late"], 1.5 * x, x)

    def strength(call):
        return 1 + call.ids.float().mean() / 1000

    patch = Patch(pipe)
    patch.map("unet.text", do.dense(16, 16, 1, 0.3, dtype=torch.float32))
    patch.output("unet.skip.0", skip)
    patch.output("unet.mid", lambda x, call: x * call.per_prompt(strength))
    patch.output(do.one(pipe, "cross_attn.out"), lambda x, call: x + call.conditional.view(-1, 1, 1) * 0.25)
    return patch


def use(pipe, name):
    scheduler = getattr(diffusers, name)
    pipe.scheduler = scheduler.from_config(
        {key: value for key, value in pipe.scheduler.config.items() if not key.startswith("_")} | SCHEDULERS[name]
    )


@pytest.mark.parametrize("name", SCHEDULERS)
def test_pictures_in_a_row_are_those_of_fresh_runs(fresh_slim, do, name):
    alone = []
    for steps, prompt in PAINTINGS:
        pipe = fresh_slim()
        use(pipe, name)
        with do.attached(pipe, windowed(pipe, do)):
            alone.append(do.picture(pipe, prompt, steps=steps))
    pipe = fresh_slim()
    use(pipe, name)
    with do.attached(pipe, windowed(pipe, do)):
        in_a_row = [do.picture(pipe, prompt, steps=steps) for steps, prompt in PAINTINGS]
    assert all(torch.equal(one, other) for one, other in zip(alone, in_a_row, strict=True))
    assert all(picture.isfinite().all() for picture in alone)
    assert not torch.equal(in_a_row[0], do.picture(pipe, "a cat", steps=20))


def test_an_interrupted_picture_does_not_shift_the_next(slim, do):
    def stop(pipe, step, timestep, kwargs):
        pipe._interrupt = step == 3
        return kwargs

    with do.attached(slim, windowed(slim, do)):
        whole = do.picture(slim, steps=8)
        assert not torch.equal(do.picture(slim, steps=8, callback_on_step_end=stop), whole)
        assert torch.equal(do.picture(slim, steps=8), whole)


def test_the_scheduler_may_be_changed_under_the_edits(slim, do):
    with do.attached(slim, windowed(slim, do)):
        plain = do.picture(slim, steps=5)
        config = slim.scheduler
        use(slim, "EulerDiscreteScheduler")
        other = do.picture(slim, steps=5)
        slim.scheduler = config
        assert torch.equal(do.picture(slim, steps=5), plain)
    assert not torch.equal(other, plain)


def test_every_u_net_call_of_a_scheduler_is_seen(slim, do):
    look, seen = do.seeing(slim, lambda call: float(call.timestep[0]))
    use(slim, "PNDMScheduler")
    with do.attached(slim, look):
        do.picture(slim, steps=10)
    assert len(seen) == 11
    assert seen == sorted(seen, reverse=True)


@pytest.mark.parametrize("place", ["text", "cross_attn.k", "cross_attn.out", "skip", "mid"])
def test_both_halves_of_a_guided_batch_are_edited(pipe, do, place):
    shapes = []

    def edit(x, call):
        shapes.append(x.shape[0])
        return 1.5 * x + 0.5

    plain = do.predict(pipe)
    with do.attached(pipe, do.patch(pipe, "output", do.one(pipe, place), edit)):
        edited = do.predict(pipe)
        do.picture(pipe, steps=1)
        do.picture(pipe, steps=1, guidance_scale=1.0)
    assert all(not torch.equal(one, other) for one, other in zip(edited, plain, strict=True))
    assert shapes == [2, 2, 1]


def test_maps_and_adds_act_in_every_row(pipe, do):
    plain = do.predict(pipe, batch=3)
    for verb, point in (("map", "unet.text"), ("add", "unet.conv_in")):
        change = do.square(do.one(pipe, "text")) if verb == "map" else do.dense(8, 36)
        with do.attached(pipe, do.patch(pipe, verb, point, change)):
            edited = do.predict(pipe, batch=3)
        assert all(not torch.equal(one, other) for one, other in zip(edited, plain, strict=True))


@pytest.mark.parametrize("guidance", [7.5, 1.0])
def test_a_batch_is_its_singles(fresh_slim, do, guidance):
    pipe = fresh_slim(dtype=torch.float64)
    prompts = [prompt for _, prompt in PAINTINGS]

    def seeded(seed):
        return torch.Generator().manual_seed(seed)

    def gate(x, call):
        known = call.ids.double().mean(1).view(-1, 1, 1)
        return x * (1 + call.conditional.view(-1, 1, 1) * known / 1000)

    patch = do.patch(pipe, "map", "unet.text", do.dense(16, 16, 1, 0.3))
    patch.output("unet.skip.0", lambda x, call: x * (1 + call.timestep.view(-1, 1, 1, 1) / 1000))
    patch.output(do.one(pipe, "cross_attn.out"), gate)
    with do.attached(pipe, patch):
        batch = do.picture(pipe, prompts, steps=3, guidance_scale=guidance, generator=[seeded(s) for s in range(3)])
        singles = [
            do.picture(pipe, prompt, steps=3, guidance_scale=guidance, generator=seeded(s))
            for s, prompt in enumerate(prompts)
        ]
    torch.testing.assert_close(batch, torch.cat(singles), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (16, 48)])
def test_any_resolution_is_edited(pipe, do, height, width):
    patch = Patch(pipe)
    patch.output("unet.skip.0", lambda x, call: 2 * x)
    patch.output("unet.mid", lambda x, call: x + 1)
    patch.map(do.one(pipe, "self_attn.k"), do.square(do.one(pipe, "self_attn.k")))
    patch.add("unet.conv_in", do.dense(8, 36))
    plain = do.picture(pipe, steps=1, height=height, width=width)
    with do.attached(pipe, patch):
        edited = do.picture(pipe, steps=1, height=height, width=width)
    assert edited.shape == (1, 4, height // 2, width // 2)
    assert not torch.equal(edited, plain)
