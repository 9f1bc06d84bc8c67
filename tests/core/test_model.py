"""What a fit may ask of a pipeline agrees with what the pipeline does itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler, PNDMScheduler
from peft import LoraConfig
from torch import Tensor

import efface
from efface import BadConcept, BadEdit, Call, Editor, Erasure, HookPoint, Model, Registry, UnknownPoint
from efface.errors import EffaceError
from efface.model import Encoded
from efface.testing.pipelines import FAMILIES, tiny_pipeline


@pytest.fixture(params=FAMILIES)
def family(request: Any) -> str:
    name: str = request.param
    return name


@pytest.fixture
def model(family: str, shared: Any, registry: Registry) -> Model:
    return Model(shared(family), registry)


@pytest.fixture
def sd1(pipe: Any, registry: Registry) -> Model:
    return Model(pipe, registry)


def ids_of(encoded: Encoded, row: int) -> list[int]:
    return encoded.ids[row, encoded.start[row] : encoded.stop[row]].tolist()


# Prompts


def test_encoding_is_the_pipelines_own(model: Model) -> None:
    prompts = ["a cat", "", "a photo of a red dog"]
    found = model.pipe.encode_prompt(prompts, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False)
    encoded = model.encode(prompts)
    assert encoded.prompts == tuple(prompts)
    assert torch.equal(encoded.hidden, found[0])
    if model.pipe.__class__.__name__ == "StableDiffusionXLPipeline":
        assert torch.equal(encoded.pooled, found[2])  # type: ignore[arg-type]
    else:
        assert encoded.pooled is None


def test_encoding_in_batches_changes_nothing_but_rounding(sd1: Model) -> None:
    prompts = ["a cat", "a dog", "a red bird", "a house by the tree", ""]
    whole, pieces = sd1.encode(prompts), sd1.encode(prompts, batch_size=2)
    assert torch.equal(whole.ids, pieces.ids)
    torch.testing.assert_close(pieces.hidden, whole.hidden, rtol=0, atol=1e-5)


def test_every_phrase_stands_in_every_template_phrase_by_phrase(sd1: Model) -> None:
    encoded = sd1.encode_phrases(["cat", "van gogh"], ["{}", "a photo of {} by the tree"])
    assert encoded.prompts == (
        "cat",
        "a photo of cat by the tree",
        "van gogh",
        "a photo of van gogh by the tree",
    )


@pytest.mark.parametrize(
    "template", ["{}", "a photo of {}", "{} in the style of", "a photo of {} by the tree", "a, {}!"]
)
@pytest.mark.parametrize("phrase", ["cat", "van gogh", "zebra", "a red-hot cat"])
def test_the_span_of_a_phrase_holds_its_tokens_and_no_other(template: str, phrase: str, sd1: Model) -> None:
    tokens = sd1.pipe.tokenizer(phrase, add_special_tokens=False).input_ids
    encoded = sd1.encode_phrases([phrase], [template])
    assert ids_of(encoded, 0) == tokens
    before = sd1.pipe.tokenizer(template.partition("{}")[0], add_special_tokens=False).input_ids
    assert int(encoded.start[0]) == 1 + len(before)
    assert encoded.subject.tolist() == [int(encoded.start[0]) + len(tokens) - 1]


def test_the_span_of_a_whole_prompt_is_all_of_it(sd1: Model) -> None:
    encoded = sd1.encode(["a red dog", "cat"])
    assert encoded.start.tolist() == [1, 1]
    assert encoded.stop.tolist() == encoded.end.tolist() == [4, 2]


def test_an_empty_phrase_is_represented_by_the_end_of_text(sd1: Model) -> None:
    encoded = sd1.encode_phrases([""], ["{}", "a photo of {}"])
    assert encoded.subject.tolist() == encoded.end.tolist() == [1, 4]
    assert encoded.start.tolist() == encoded.stop.tolist()
    ends = encoded.ids[torch.arange(2), encoded.subject]
    assert ends.tolist() == [sd1.pipe.tokenizer.eos_token_id] * 2


def test_the_subject_is_the_token_that_uce_picks(model: Model) -> None:
    prompts = ["cat", "van gogh", "a photo of a red dog", "zebra"]
    mask = model.pipe.tokenizer(
        prompts, padding="max_length", max_length=model.pipe.tokenizer.model_max_length, return_tensors="pt"
    ).attention_mask
    encoded = model.encode_phrases(prompts, ["{}"])
    assert encoded.subject.tolist() == (mask.sum(1) - 2).tolist()
    assert torch.equal(encoded.at(encoded.subject), encoded.hidden[range(4), mask.sum(1) - 2])


def test_braces_in_a_prompt_are_text(sd1: Model) -> None:
    assert sd1.encode(["a {} cat"]).prompts == ("a {} cat",)


def test_a_phrase_may_fill_the_tokenizer_and_no_more(model: Model) -> None:
    encoded = model.encode_phrases(["a b c d e f g h i j k l m n"], ["{}"])
    assert (encoded.start.item(), encoded.stop.item(), encoded.end.item()) == (1, 15, 15)
    with pytest.raises(BadConcept, match=r"'a a b .* is longer than the 16 tokens"):
        model.encode_phrases(["cat", "a b c d e f g h i j k l m n"], ["{}", "a {}"])


def test_a_template_may_be_cut_off_behind_the_phrase(sd1: Model) -> None:
    encoded = sd1.encode_phrases(["cat"], ["a b c d e f g h i {} k l m n o p q"])
    assert ids_of(encoded, 0) == sd1.pipe.tokenizer("cat", add_special_tokens=False).input_ids


def test_a_character_that_the_tokenizer_lacks_is_named_with_its_prompt(sd1: Model) -> None:
    with pytest.raises(BadConcept, match="'a photo of \u732b' has characters that are no tokens"):
        sd1.encode_phrases(["cat", "\u732b"], ["a photo of {}"])


# Noise and denoising


def test_a_seed_gives_its_noise_in_any_batch(model: Model) -> None:
    together = model.noise([3, 1, 3])
    assert together.shape == (3, 4, 8, 8)
    assert torch.equal(together[0], together[2])
    assert torch.equal(together[1:2], model.noise([1]))
    assert not torch.equal(together[0], together[1])


def test_noise_has_the_size_asked_for_in_pixels(sd1: Model) -> None:
    assert sd1.noise([0], height=24, width=32).shape == (1, 4, 12, 16)


def test_noise_leaves_the_global_generator_alone(sd1: Model) -> None:
    before = torch.get_rng_state()
    sd1.noise([1, 2])
    assert torch.equal(torch.get_rng_state(), before)


def by_pipeline(model: Model, prompts: list[str], noise: Tensor, **options: Any) -> Tensor:
    found: Tensor = model.pipe(prompts, latents=noise, num_inference_steps=4, output_type="latent", **options).images
    return found


@pytest.mark.parametrize("guidance", [7.5, 1.0])
def test_denoising_gives_the_latents_of_the_pipeline(model: Model, guidance: float) -> None:
    prompts, noise = ["a cat", "a red dog"], model.noise([0, 1])
    wanted = by_pipeline(model, prompts, noise, guidance_scale=guidance)
    found = model.denoise(model.encode(prompts), noise, steps=4, guidance=guidance)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_denoising_steers_away_from_the_negative_prompt_as_the_pipeline_does(model: Model) -> None:
    prompts, noise = ["a cat", "a red dog"], model.noise([0, 1])
    wanted = by_pipeline(model, prompts, noise, negative_prompt=["a house"] * 2, guidance_scale=7.5)
    found = model.denoise(model.encode(prompts), noise, steps=4, negative="a house")
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, model.denoise(model.encode(prompts), noise, steps=4), atol=1e-3)


@pytest.mark.parametrize("scheduler", [PNDMScheduler])
def test_denoising_follows_a_scheduler_of_another_kind(scheduler: Any, sd1: Model, monkeypatch: Any) -> None:
    monkeypatch.setattr(sd1.pipe, "scheduler", scheduler.from_config(sd1.pipe.scheduler.config))
    noise = sd1.noise([0])
    wanted = by_pipeline(sd1, ["a cat"], noise)
    torch.testing.assert_close(sd1.denoise(sd1.encode(["a cat"]), noise, steps=4), wanted, rtol=1e-4, atol=1e-4)


def test_the_pipelines_own_scheduler_is_not_used_up(sd1: Model) -> None:
    sd1.pipe.scheduler.set_timesteps(7)
    sd1.denoise(sd1.encode(["a cat"]), sd1.noise([0]), steps=3)
    assert len(sd1.pipe.scheduler.timesteps) == 7


def test_a_scheduler_that_draws_noise_depends_on_the_start_noise_alone(sd1: Model, monkeypatch: Any) -> None:
    monkeypatch.setattr(sd1.pipe, "scheduler", DDPMScheduler.from_config(sd1.pipe.scheduler.config))
    torch.manual_seed(0)
    before = torch.get_rng_state()
    pair = sd1.denoise(sd1.encode(["a cat"] * 2), sd1.noise([0, 1]), steps=3)
    assert torch.equal(torch.get_rng_state(), before)
    alone = sd1.denoise(sd1.encode(["a cat"]), sd1.noise([1]), steps=3)
    torch.testing.assert_close(pair[1:], alone, rtol=1e-4, atol=1e-4)


def test_denoising_stops_before_the_first_timestep_below_until(sd1: Model) -> None:
    encoded, noise, seen = sd1.encode(["a cat"]), sd1.noise([0]), []
    with sd1.record(["unet.mid"], lambda point, tensor, call: seen.append(int(call.timestep[0]))):
        sd1.denoise(encoded, noise, steps=10, guidance=1.0)
    assert seen == [901, 801, 701, 601, 501, 401, 301, 201, 101, 1]
    for until, steps in ((1001, 0), (901, 1), (502, 4), (501, 5), (500, 5), (0, 10)):
        seen.clear()
        with sd1.record(["unet.mid"], lambda point, tensor, call: seen.append(int(call.timestep[0]))):
            found = sd1.denoise(encoded, noise, steps=10, guidance=1.0, until=until)
        assert len(seen) == steps
    assert torch.equal(found, sd1.denoise(encoded, noise, steps=10, guidance=1.0))
    assert torch.equal(sd1.denoise(encoded, noise, steps=10, until=1001), noise)


def test_the_latents_at_until_are_those_the_pipeline_passes_through(sd1: Model) -> None:
    noise, passed = sd1.noise([0]), {}

    def note(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        passed[int(timestep)] = tensors["latents"].clone()
        return tensors

    by_pipeline(sd1, ["a cat"], noise, callback_on_step_end=note)
    assert sorted(passed) == [1, 251, 501, 751]
    found = sd1.denoise(sd1.encode(["a cat"]), noise, steps=4, until=400)
    torch.testing.assert_close(found, passed[501], rtol=1e-4, atol=1e-4)


def test_a_prediction_is_the_unets_own(model: Model) -> None:
    encoded, noise = model.encode(["a cat", "a dog"]), model.noise([0, 1])
    options = {}
    if encoded.pooled is not None:
        sizes = torch.tensor([[16.0, 16, 0, 0, 16, 16]] * 2)
        options["added_cond_kwargs"] = {"text_embeds": encoded.pooled, "time_ids": sizes}
    for timestep in (501, torch.tensor(501)):
        wanted = model.unet(noise, timestep, encoder_hidden_states=encoded.hidden, **options).sample
        assert torch.equal(model.predict(noise, timestep, encoded), wanted)


def test_predictions_can_be_differentiated(sd1: Model) -> None:
    encoded = sd1.encode(["a cat"])
    hidden = encoded.hidden.clone().requires_grad_()
    sd1.predict(sd1.noise([0]), 5, dataclasses.replace(encoded, hidden=hidden)).sum().backward(inputs=[hidden])
    assert hidden.grad is not None
    assert hidden.grad.abs().sum() > 0


# Recording


def test_recording_delivers_what_each_point_computes(sd1: Model, toys: Any) -> None:
    names = ["unet.mid", "unet.skip.0", "unet.skip.11", toys["bend"].QUERY, toys["nudge"].VALUE, "unet.text"]
    taken: dict[str, Tensor] = {}
    unet, noise, encoded = sd1.unet, sd1.noise([0, 1]), sd1.encode(["a cat", "a dog"])
    modules = {
        "unet.mid": unet.mid_block,
        "unet.skip.0": unet.conv_in,
        "unet.skip.11": unet.down_blocks[3].resnets[1],
        **{name: unet.get_submodule(name.removeprefix("unet.")) for name in names[3:5]},
    }
    wanted: dict[str, Tensor] = {"unet.text": encoded.hidden}
    theirs = [
        module.register_forward_hook(lambda module, args, output, name=name: wanted.update({name: output}))
        for name, module in modules.items()
    ]
    try:
        with sd1.record(names, lambda point, tensor, call: taken.update({point.name: tensor.clone()})):
            sd1.predict(noise, 5, encoded)
    finally:
        for hook in theirs:
            hook.remove()
    assert sorted(taken) == sorted(names)
    for name in names:
        assert torch.equal(taken[name], wanted[name]), name
        assert not taken[name].requires_grad


def test_recording_says_where_and_when(sd1: Model) -> None:
    seen: list[tuple[HookPoint, int, int]] = []
    (mid,) = sd1.points("mid")

    def listen(point: HookPoint, tensor: Tensor, call: Call) -> None:
        seen.append((point, len(tensor), int(call.timestep[0])))

    with sd1.record([mid], listen):
        sd1.predict(sd1.noise([0]), 7, sd1.encode(["a"]))
        sd1.predict(sd1.noise([0, 1]), 3, sd1.encode(["a", "b"]))
    assert seen == [(mid, 1, 7), (mid, 2, 3)]


def test_recording_changes_no_prediction_and_leaves_nothing(sd1: Model, state: Any) -> None:
    encoded, noise, before = sd1.encode(["a cat"]), sd1.noise([0]), state(sd1.pipe)
    points = [point for point in sd1.points() if point.kind != "step"]
    plain = sd1.predict(noise, 5, encoded)
    with sd1.record(points, lambda point, tensor, call: None):
        assert torch.equal(sd1.predict(noise, 5, encoded), plain)
        assert torch.equal(sd1.encode(["a cat"]).hidden, encoded.hidden)
    assert state(sd1.pipe) == before


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_recording_leaves_nothing_after_an_exception(error: type[BaseException], sd1: Model, state: Any) -> None:
    encoded, noise, before = sd1.encode(["a cat"]), sd1.noise([0]), state(sd1.pipe)

    def listen(point: HookPoint, tensor: Tensor, call: Call) -> None:
        raise error

    with pytest.raises(error), sd1.record(["unet.mid"], listen):
        sd1.predict(noise, 5, encoded)
    with pytest.raises(error), sd1.record(["unet.mid", "unet.skip.0"], lambda *_: None):
        raise error
    assert state(sd1.pipe) == before


def test_recording_a_text_encoder_takes_embeddings_made_before(sd1: Model, toys: Any) -> None:
    encoded, noise, seen = sd1.encode(["a cat"]), sd1.noise([0]), []
    plain = sd1.predict(noise, 5, encoded)
    with sd1.record([toys["word"].LAST, "unet.mid"], lambda point, tensor, call: seen.append(point.kind)):
        assert torch.equal(sd1.predict(noise, 5, encoded), plain)
        sd1.encode(["a dog"])
    assert seen == ["mid", "text_encoder.fc2"]


def test_what_has_no_output_of_its_own_cannot_be_recorded(sd1: Model, state: Any) -> None:
    before = state(sd1.pipe)
    with (
        pytest.raises(BadEdit, match=r"unet\.step \(kind step\) takes step, not output"),
        sd1.record(["unet.step"], lambda *_: None),
    ):
        pass
    with pytest.raises(UnknownPoint, match=r"unet\.skipp"), sd1.record(["unet.skipp"], lambda *_: None):
        pass
    assert state(sd1.pipe) == before


# Points and weights


def test_points_are_the_pipelines_with_those_of_plugins(pipe: Any) -> None:
    class Plugin:
        @efface.hookimpl
        def efface_points(self, pipe: Any) -> list[HookPoint]:
            return [HookPoint("unet.extra", "extra", "unet", "conv_out", 0, 0, 8, 4)]

    model = Model(pipe, Registry([Plugin()]))
    assert [point.name for point in model.points()][:-1] == [point.name for point in efface.points(pipe)]
    assert [point.name for point in model.points("extra")] == ["unet.extra"]
    assert torch.equal(model.weight("unet.extra"), pipe.unet.conv_out.weight)
    seen: list[tuple[int, ...]] = []
    with model.record(["unet.extra"], lambda point, tensor, call: seen.append(tuple(tensor.shape))):
        model.predict(model.noise([0]), 1, model.encode(["a"]))
    assert seen == [(1, 4, 8, 8)]


def test_a_weight_is_the_layers_own_and_takes_no_gradient(sd1: Model, toys: Any) -> None:
    layer = sd1.unet.get_submodule(toys["nudge"].VALUE.removeprefix("unet."))
    weight = sd1.weight(toys["nudge"].VALUE)
    assert weight.data_ptr() == layer.weight.data_ptr()
    assert not weight.requires_grad
    (point,) = [point for point in sd1.points("cross_attn.v") if point.name == toys["nudge"].VALUE]
    assert torch.equal(sd1.weight(point), weight)
    assert sd1.weight(toys["nudge"].CONVOLUTION).shape == (16, 16, 3, 3)


def test_a_weight_leaves_a_lora_out(registry: Registry, toys: Any) -> None:
    model = Model(tiny_pipeline("sd1"), registry)
    before = model.weight(toys["nudge"].VALUE).clone()
    model.unet.add_adapter(LoraConfig(r=2, target_modules=["to_v"], init_lora_weights=False))
    assert torch.equal(model.weight(toys["nudge"].VALUE), before)


def test_what_is_no_layer_has_no_weight(sd1: Model) -> None:
    for name in ("unet.text", "unet.mid", "unet.skip.3", "unet.step"):
        with pytest.raises(EffaceError, match=rf"{name} \(kind .*\) is no layer"):
            sd1.weight(name)
    with pytest.raises(UnknownPoint, match=r"Did you mean"):
        sd1.weight("unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_w")


# What there is to know


def test_a_model_knows_device_and_dtype(family: str, registry: Registry) -> None:
    model = Model(tiny_pipeline(family, dtype=torch.bfloat16), registry)  # type: ignore[arg-type]
    assert model.device == torch.device("cpu")
    assert model.dtype == torch.bfloat16
    assert model.noise([0]).dtype == torch.bfloat16


def test_the_neutral_prompt_of_an_unnamed_model_is_empty(sd1: Model) -> None:
    assert sd1.neutral == ""


def test_a_model_needs_a_unet() -> None:
    with pytest.raises(efface.UnsupportedPipeline, match="has no unet"):
        Model(SimpleNamespace(unet=None))


def test_recording_is_refused_beside_an_editor(
    sd1: Model, registry: Registry, erasures: Mapping[str, Erasure], hooks: Any
) -> None:
    with Editor(sd1.pipe, erasures["tilt"], registry=registry):
        wired = hooks(sd1.pipe)
        with pytest.raises(efface.AlreadyEdited), sd1.record(["unet.mid"], lambda *_: None):
            pass
        assert hooks(sd1.pipe) == wired
