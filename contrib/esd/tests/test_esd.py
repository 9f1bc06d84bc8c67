"""What ESD trains, towards what, and how it is kept."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

import efface
from efface.testing import tiny_pipeline
from efface.testing.state import State
from efface_esd.bank import Prompts, target, walked
from efface_esd.edited import Edited
from efface_esd.esd import ESD, kept
from efface_esd.layers import trained
from efface_esd.training import Training

REQUEST = efface.Request((efface.Concept("cat", anchor="dog"),))
QUICK = {"sampling": 2, "trajectories": 2, "batch": 2}


@pytest.fixture(scope="module")
def model() -> efface.Model:
    return efface.Model(tiny_pipeline("sd1"), efface.Registry())


def training(model: efface.Model, request: efface.Request = REQUEST, **settings: Any) -> Training:
    return Training.of(ESD(**QUICK | settings), model, request, efface.Run())


def test_the_target_is_guidance_away_from_the_concept() -> None:
    assert torch.equal(target(torch.tensor(1.0), torch.tensor(3.0), 1.0), torch.tensor(-1.0))
    assert torch.equal(target(torch.tensor(1.0), torch.tensor(3.0), 0.0), torch.tensor(1.0))


def test_the_choices_of_layers_are_the_papers(model: efface.Model) -> None:
    cross, strict, rest, full = (set(trained(model, choice)) for choice in ("x", "x-strict", "u", "full"))
    assert cross == {point.name for point in model.points("cross_attn.*")}
    assert strict == {point.name for point in model.points("cross_attn.k", "cross_attn.v")}
    assert not cross & rest
    assert cross | rest == full
    assert "unet.conv_in" in rest


@pytest.mark.parametrize("interrupted", [False, True])
def test_changed_weights_act_and_are_gone_again(model: efface.Model, interrupted: bool) -> None:
    edited = Edited(model.unet, trained(model, "full"))
    changes = {name: change + 0.1 for name, change in edited.zeros().items()}
    encoded, noise = model.encode(["a cat"]), model.noise([0])
    before, base = State.of(model.pipe), model.predict(noise, 500, encoded)

    def work() -> torch.Tensor:
        if interrupted:
            raise KeyboardInterrupt
        return model.predict(noise, 500, encoded)

    if interrupted:
        with pytest.raises(KeyboardInterrupt):
            edited.run(changes, work)
    else:
        assert not torch.equal(edited.run(changes, work), base)
    assert before.changed(State.of(model.pipe)) == ""
    assert torch.equal(model.predict(noise, 500, encoded), base)


def test_what_is_saved_acts_as_what_was_trained(model: efface.Model) -> None:
    edited = Edited(model.unet, trained(model, "full"))
    generator = torch.Generator().manual_seed(0)
    changes = {name: 0.01 * torch.randn(change.shape, generator=generator) for name, change in edited.zeros().items()}
    encoded, noise = model.encode(["a cat"]), model.noise([0])
    wanted = edited.run(changes, partial(model.predict, noise, 500, encoded))
    fit = efface.Fit({name: change.flatten(1) for name, change in changes.items()})
    patch = efface.Patch(model.pipe)
    ESD().apply(patch, [efface.Fitted(fit, REQUEST)])
    found = on(model, patch, partial(model.predict, noise, 500, encoded))
    assert torch.allclose(found, wanted, atol=1e-5)  # sums are taken in another order


def on(model: efface.Model, patch: efface.Patch, work: Callable[[], torch.Tensor]) -> torch.Tensor:
    from efface_hooks import Wiring

    wiring = Wiring(model.pipe, allow=("prompt_embeds",))
    wiring.set([patch])
    try:
        return work()
    finally:
        wiring.clear()


def test_a_trajectory_begins_at_the_noise_and_ends_where_it_is_told(model: efface.Model) -> None:
    noise = model.noise([0, 1])
    for guidance in (1.0, 3.0):
        latents, timesteps = walked(model, model.encode(["a", "a cat"]), noise, steps=4, guidance=guidance, until=300)
        assert torch.equal(latents[0], noise)
        assert timesteps[:, 0].tolist() == sorted(timesteps[:, 0].tolist(), reverse=True)
        assert latents.shape[:2] == timesteps.shape == (2, 2)
        assert int(timesteps.min()) >= 300


def test_trajectories_that_serve_one_step_give_one_row_each(model: efface.Model) -> None:
    assert len(training(model, renew=1, trajectories=1).bank(0).prompts) == 1
    assert len(training(model, renew=5).bank(0).prompts) == 2 * 2


def test_trajectories_are_walked_by_the_model_as_it_is_edited(model: efface.Model) -> None:
    one = training(model)
    before = one.bank(0).latents
    for change in one.changes.values():
        change.data += 0.1
    after = one.bank(0).latents
    assert torch.equal(before[:2], after[:2])
    assert not torch.equal(before[2:], after[2:])


def test_guidance_may_start_at_the_anchor(model: efface.Model) -> None:
    nothing, anchored = (Prompts.of(model, REQUEST, anchored) for anchored in (False, True))
    assert (nothing.start.prompts, anchored.start.prompts) == (("",), ("dog",))
    assert nothing.erased.prompts == anchored.erased.prompts == ("cat",)


def test_training_brings_the_prediction_nearer_to_the_target(model: efface.Model) -> None:
    one = training(model, steps=60, renew=60, rate=3e-3)
    bank = one.bank(0)
    encoded, empty = model.encode(["cat"] * len(bank.prompts)), model.encode([""] * len(bank.prompts))
    with torch.no_grad():
        base = model.predict(bank.latents, bank.timesteps, encoded)
        wanted = target(model.predict(bank.latents, bank.timesteps, empty), base, 1.0)
    one.run_through()
    found = one.edited.run(one.changes, partial(model.predict, bank.latents, bank.timesteps, encoded)).detach()
    assert (found - wanted).norm() < 0.3 * (base - wanted).norm()


def test_a_rank_keeps_the_largest_part_of_a_change() -> None:
    generator = torch.Generator().manual_seed(0)
    thin = torch.randn(8, 2, generator=generator) @ torch.randn(2, 10, generator=generator)
    factors = kept("layer", thin, 2)
    assert {name: tuple(factor.shape) for name, factor in factors.items()} == {
        "layer.up": (8, 2),
        "layer.down": (2, 10),
    }
    assert torch.allclose(factors["layer.up"] @ factors["layer.down"], thin, atol=1e-5)
    assert list(kept("layer", thin, None)) == list(kept("layer", thin, 5)) == ["layer"]  # factors of rank 5 are larger


def test_kept_prompts_are_said_to_be_of_no_use(model: efface.Model) -> None:
    keeping = efface.Request(REQUEST.concepts, keep=("a house",))
    fits = [ESD(**QUICK, steps=1).fit(model, request, efface.Run()) for request in (keeping, REQUEST)]
    assert [fit.report.get("not used") for fit in fits] == [["keep"], None]
