"""GLoCE erasures on tiny pipelines: where and when they act, together and alone, and that they come off again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, LMSDiscreteScheduler, PNDMScheduler
from torch import Tensor

import efface
from efface.testing import FAMILIES, tiny_pipeline
from efface_gloce.gloce import GLoCE
from efface_hooks import Wiring

Draw = Callable[..., Tensor]
Fit = Callable[..., efface.Erasure]
Change = Callable[[efface.Erasure, float], efface.Erasure]

SCHEDULERS = (DDIMScheduler, DPMSolverMultistepScheduler, PNDMScheduler, LMSDiscreteScheduler)


def edits(pipe: Any) -> list[Any]:
    wiring = Wiring.of(pipe)
    assert wiring is not None
    return [edit for patch in wiring.patches for edit in patch.edits]


@pytest.mark.parametrize("family", FAMILIES)
def test_it_acts_on_every_cross_attention_output_and_comes_off_bit_for_bit(
    family: Any, quick: Fit, with_threshold: Change, latents: Draw
) -> None:
    pipe = tiny_pipeline(family)
    plain, names = latents(pipe), list(pipe.unet.state_dict())
    erasure = quick(pipe)
    assert erasure.header.points == tuple(point.name for point in efface.points(pipe, "cross_attn.out"))
    with efface.Editor(pipe, with_threshold(erasure, -1.0)) as editor:
        erased = latents(pipe)
        assert not torch.allclose(erased, plain, atol=1e-3)
        assert list(pipe.unet.state_dict()) == names
        editor.disable()
        assert torch.equal(latents(pipe), plain)
    assert torch.equal(latents(pipe), plain)
    assert not [hook for module in pipe.unet.modules() for hook in (*module._forward_hooks, *module._forward_pre_hooks)]


def test_a_picture_in_which_no_gate_opens_is_the_base_pictures_bit_for_bit(
    pipe: Any, cat: efface.Erasure, dog: efface.Erasure, with_threshold: Change, latents: Draw
) -> None:
    plain = latents(pipe)
    with efface.Editor(pipe, with_threshold(cat, 2.0), with_threshold(dog, 2.0)):
        assert torch.equal(latents(pipe), plain)


def test_some_gates_of_a_fit_are_open_on_the_concept(pipe: Any, cat: efface.Erasure, latents: Draw) -> None:
    with efface.Editor(pipe, cat):
        assert not torch.equal(latents(pipe, "a picture of a cat", 5), latents(pipe, "", 5))
    thresholds = torch.cat([tensor for name, tensor in cat.tensors.items() if name.endswith(".threshold")])
    assert (thresholds > 0).all()
    assert (thresholds < 1).any()


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=lambda scheduler: scheduler.__name__)
def test_it_acts_from_its_timestep_on_whatever_the_scheduler_and_the_number_of_steps(
    scheduler: Any, quick: Fit, with_threshold: Change, latents: Draw
) -> None:
    pipe = tiny_pipeline("sd1")
    opened = with_threshold(quick(pipe, settings={"active_from": 700}), -1.0)
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
    for steps in (7, 9):
        base = passes(pipe, steps, latents)
        with efface.Editor(pipe, opened):
            edited = passes(pipe, steps, latents)
        acted = [not torch.equal(one, other) for (_, one), (_, other) in zip(base, edited, strict=True)]
        assert acted == [timestep <= 700 for timestep, _ in base]
        assert len(set(acted)) == 2


def passes(pipe: Any, steps: int, latents: Draw) -> list[tuple[float, Tensor]]:
    """The timestep and the result of every pass of the U-Net while a picture is made."""
    heard: list[tuple[float, Tensor]] = []
    hook = pipe.unet.register_forward_hook(lambda module, args, output: heard.append((float(args[1]), output[0])))
    latents(pipe, steps=steps)
    hook.remove()
    return heard


def test_a_picture_does_not_depend_on_the_ones_before_it(
    pipe: Any, cat: efface.Erasure, with_threshold: Change, latents: Draw
) -> None:
    opened = with_threshold(cat, -1.0)
    alone = []
    for steps in (5, 3, 4):
        with efface.Editor(pipe, opened):
            alone.append(latents(pipe, steps=steps))
    with efface.Editor(pipe, opened):
        together = [latents(pipe, steps=steps) for steps in (5, 3, 4)]
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))


def test_the_order_in_which_erasures_were_put_on_does_not_matter_bit_for_bit(
    pipe: Any, cat: efface.Erasure, dog: efface.Erasure, bird: efface.Erasure, with_threshold: Change, latents: Draw
) -> None:
    three = [with_threshold(cat, 0.1), with_threshold(dog, 0.1), with_threshold(bird, 0.1)]
    with efface.Editor(pipe, *three):
        wanted, rows = latents(pipe), edits(pipe)[0].what.concepts
    assert not torch.equal(wanted, latents(pipe))
    for order in ([2, 0, 1], [1, 2, 0]):
        with efface.Editor(pipe, *(three[index] for index in order)):
            assert torch.equal(latents(pipe), wanted)
            assert edits(pipe)[0].what.concepts == rows  # rounding would follow the order of the rows


def test_erasures_with_different_settings_form_one_stack(pipe: Any, cat: efface.Erasure, dog: efface.Erasure) -> None:
    with efface.Editor(pipe, cat, dog):
        assert len(edits(pipe)) == len(cat.header.points)
        assert edits(pipe)[0].what.concepts in (("cat", "dog"), ("dog", "cat"))
    assert GLoCE(tau=2.0) == GLoCE(tau=3.0)
    assert GLoCE(tie_break="first") != GLoCE()
    assert hash(GLoCE(tau=2.0)) == hash(GLoCE())


def test_with_all_others_closed_a_stack_is_the_one_that_is_open(
    pipe: Any, cat: efface.Erasure, dog: efface.Erasure, bird: efface.Erasure, with_threshold: Change, latents: Draw
) -> None:
    opened = with_threshold(dog, -1.0)
    with efface.Editor(pipe, opened):
        wanted = latents(pipe)
    with efface.Editor(pipe, with_threshold(cat, 2.0), opened, with_threshold(bird, 2.0)) as editor:
        torch.testing.assert_close(latents(pipe), wanted, rtol=0, atol=1e-5)
        editor.detach(opened)
        assert torch.equal(latents(pipe), latents(pipe))


def test_taking_one_of_two_off_leaves_the_other_as_if_it_had_been_alone(
    pipe: Any, cat: efface.Erasure, dog: efface.Erasure, with_threshold: Change, latents: Draw
) -> None:
    opened = [with_threshold(cat, 0.1), with_threshold(dog, 0.1)]
    with efface.Editor(pipe, opened[1]):
        wanted = latents(pipe)
    with efface.Editor(pipe, *opened) as editor:
        assert not torch.equal(latents(pipe), wanted)
        editor.detach(opened[0])
        assert torch.equal(latents(pipe), wanted)


def test_each_erasure_of_a_stack_has_its_own_scale(
    pipe: Any, cat: efface.Erasure, dog: efface.Erasure, with_threshold: Change, latents: Draw
) -> None:
    opened, closed = with_threshold(cat, -1.0), with_threshold(dog, 2.0)
    with efface.Editor(pipe, opened, closed) as editor:
        whole = latents(pipe)
        editor.scale(closed, 0.2)
        torch.testing.assert_close(latents(pipe), whole, rtol=0, atol=1e-5)
        editor.scale(opened, 0.3)
        part = latents(pipe)
        editor.scale(opened, 0)
        assert torch.equal(latents(pipe), latents(pipe))
    plain = latents(pipe)
    assert 0 < (part - plain).norm() < (whole - plain).norm()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_pipelines_can_be_fitted_and_edited(
    dtype: torch.dtype, quick: Fit, with_threshold: Change, latents: Draw
) -> None:
    pipe = tiny_pipeline("sd1", dtype=dtype)
    plain, erasure = latents(pipe), quick(pipe)
    assert {tensor.dtype for tensor in erasure.tensors.values()} == {torch.float32}
    with efface.Editor(pipe, with_threshold(erasure, 2.0)):
        assert torch.equal(latents(pipe), plain)
    with efface.Editor(pipe, with_threshold(erasure, -1.0)):
        erased = latents(pipe)
    assert erased.dtype == dtype
    assert erased.isfinite().all()
    assert not torch.equal(erased, plain)
    assert torch.equal(latents(pipe), plain)


def test_rows_of_a_batch_do_not_see_each_other(pipe: Any, cat: efface.Erasure, with_threshold: Change) -> None:
    """Up to the rounding of another batch size, which steep gates may enlarge: so gates here are open throughout."""

    def drawn(*prompts: str) -> Tensor:
        generators = [torch.Generator().manual_seed(len(prompt)) for prompt in prompts]
        found: Tensor = pipe(list(prompts), num_inference_steps=2, generator=generators, output_type="latent").images
        return found

    with efface.Editor(pipe, with_threshold(cat, -1.0)):
        both, alone = drawn("a cat", "red house"), drawn("red house")
    torch.testing.assert_close(both[1:], alone, rtol=0, atol=1e-4)


def test_saving_and_loading_changes_nothing(pipe: Any, cat: efface.Erasure, latents: Draw, tmp_path: Any) -> None:
    cat.save(tmp_path / "no-cat.safetensors")
    loaded = efface.Erasure.load(tmp_path / "no-cat.safetensors")
    assert loaded == cat
    with efface.Editor(pipe, cat):
        wanted = latents(pipe)
    with efface.Editor(pipe, loaded):
        assert torch.equal(latents(pipe), wanted)


def test_a_plan_says_what_is_touched(pipe: Any, cat: efface.Erasure) -> None:
    with efface.Editor(pipe, cat) as editor:
        said = str(editor.plan()).splitlines()
    assert said[0] == "1. gloce-cat (scale 1): 16 cross_attn.out"
    assert "(gloce-cat 0." in said[-1]


def test_it_says_what_it_adds_to_a_denoising_call(pipe: Any, cat: efface.Erasure) -> None:
    fitted = efface.Fitted(cat.fit, cat.request, 1.0)
    at = {point.path: 10 for point in efface.points(pipe, "cross_attn.out")}
    channels = sum(point.out_features or 0 for point in efface.points(pipe, "cross_attn.out"))
    assert GLoCE().step_flops(fitted, at) == 2 * 10 * channels * (1 + 1 + 2 * 2)


def test_it_comes_from_its_own_distribution(cat: efface.Erasure) -> None:
    assert (cat.header.method, cat.header.distribution) == ("gloce", "efface-gloce")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tau": 0}, "'tau' of gloce must be at least 0.001"),
        ({"active_from": 10, "active_until": 20}, r"active_from \(10\) must not be below active_until \(20\)"),
        ({"collect_from": 1, "collect_until": 2}, r"collect_from \(1\) must not be below collect_until \(2\)"),
        ({"template": "a picture"}, "template 'a picture' must hold {} exactly once"),
        ({"scheduler": "ddim"}, "'scheduler' of gloce must be one of pipeline, lms"),
    ],
)
def test_settings_it_cannot_take_are_refused(settings: Any, message: str, pipe: Any) -> None:
    with pytest.raises(efface.BadSetting, match=message):
        efface.erase(pipe, "cat", anchor="fish", method="gloce", settings=settings)
