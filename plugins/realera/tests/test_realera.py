"""RealEra on tiny pipelines: one file with both stages that acts, comes off, and is the same in every form."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import efface
from efface.testing import FAMILIES, tiny_pipeline
from efface_realera.lora import lora

SETTINGS: dict[str, Any] = {
    "bank": ("kitten", "bird", "house", "tree"),
    "s_lo": -0.38,
    "s_beyond": -0.38,
    "steps": 3,
    "rate": 1e-2,
    "trajectories": 2,
    "times": 2,
    "denoising_steps": 2,
    "refreshes": 0,
}

Fitted = tuple[Any, efface.Erasure]


@pytest.fixture(scope="module", params=FAMILIES)
def fitted(request: pytest.FixtureRequest) -> Fitted:
    pipe = tiny_pipeline(request.param)
    return pipe, erased(pipe)


@pytest.fixture(scope="module")
def pipe() -> Any:
    return tiny_pipeline("sd1")


def erased(pipe: Any, **settings: Any) -> efface.Erasure:
    keep = ["a red car", "fish"]
    return efface.erase(pipe, "cat", anchor="dog", keep=keep, method="realera", settings=SETTINGS | settings)


def latents(pipe: Any, prompt: str = "a cat") -> Tensor:
    found: Tensor = pipe(
        prompt, num_inference_steps=2, generator=torch.Generator().manual_seed(0), output_type="latent"
    ).images
    return found


def text_map(erasure: efface.Erasure) -> Tensor:
    """E, whichever way it is stored."""
    tensors = erasure.tensors
    return tensors["map"] if "map" in tensors else tensors["up"] @ tensors["down"]


def test_it_acts_and_comes_off_bit_for_bit(fitted: Fitted) -> None:
    pipe, erasure = fitted
    plain = latents(pipe)
    with efface.Editor(pipe, erasure):
        erased = latents(pipe)
    assert not torch.allclose(erased, plain, atol=1e-3)
    assert torch.equal(latents(pipe), plain)


def test_hooks_fused_weights_and_a_plain_lora_are_the_same_model(fitted: Fitted) -> None:
    pipe, erasure = fitted
    with efface.Editor(pipe, erasure) as editor:
        hooked = latents(pipe)
        editor.fuse()
        fused = latents(pipe)
    pipe.load_lora_weights(lora(efface.Model(pipe), erasure))
    try:
        loaded = latents(pipe)
    finally:
        pipe.unload_lora_weights()
    # Two denoising steps amplify the rounding of float32 weights; the latents are of size 5.
    torch.testing.assert_close(fused, hooked, rtol=0, atol=1e-4)
    torch.testing.assert_close(loaded, hooked, rtol=0, atol=1e-4)


def test_one_file_carries_both_stages(fitted: Fitted, tmp_path: Any) -> None:
    pipe, erasure = fitted
    points = [point.name for point in efface.points(pipe, "cross_attn.k", "cross_attn.v")]
    assert set(erasure.header.points) == {"unet.text", *points}
    assert erasure.header.facts["adapted"] == points
    erasure.save(tmp_path / "no-cat.safetensors")
    loaded = efface.Erasure.load(tmp_path / "no-cat.safetensors")
    with efface.Editor(pipe, erasure):
        wanted = latents(pipe)
    with efface.Editor(pipe, loaded):
        assert torch.equal(latents(pipe), wanted)


@pytest.mark.parametrize("family", FAMILIES)
def test_without_stage_two_it_is_the_map_alone(family: Any) -> None:
    pipe = tiny_pipeline(family)
    first, both = erased(pipe, steps=0), erased(pipe, steps=1)
    assert set(first.header.points) == {"unet.text"}
    assert "loss" not in first.header.report
    untrained = {name: torch.zeros_like(tensor) for name, tensor in both.tensors.items() if name.endswith(".up")}
    zeroed = efface.Erasure(both.header, {**both.tensors, **untrained})
    with efface.Editor(pipe, first):
        wanted = latents(pipe)
    with efface.Editor(pipe, zeroed):
        assert torch.equal(latents(pipe), wanted)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_concept_is_its_anchor_in_what_is_hard(family: Any) -> None:
    pipe = tiny_pipeline(family)
    erasure = erased(pipe, steps=0, tokens="subject", near_weight=7.0, invariants="start")
    encoded = efface.Model(pipe).encode_phrases(["cat", "dog"], ["{}"])
    cat, dog = encoded.at(encoded.subject)
    assert float((cat + text_map(erasure) @ cat - dog).norm() / (cat - dog).norm()) < 1e-5
    assert erasure.header.report["residual"]["cat"] < 1e-5
    soft = erased(pipe, steps=0, tokens="subject", near_weight=7.0, hard_targets=False)
    assert soft.header.report["residual"]["cat"] > 1e-3


@torch.no_grad()
def test_the_empty_prompt_stays() -> None:
    wide = tiny_pipeline("sdxl")  # 40 features hold the 16 tokens of the empty prompt and leave room
    erasure = erased(wide, invariants="whole", hard_targets=False)
    model = efface.Model(wide)
    empty, cat, x = model.encode([""]), model.encode(["a cat"]), model.noise([3])
    before, other = model.predict(x, 400, empty), model.predict(x, 400, cat)
    with efface.Editor(wide, erasure):
        assert float((model.predict(x, 400, empty) - before).abs().max()) < 1e-5
        assert float((model.predict(x, 400, cat) - other).abs().max()) > 1e-4


def test_the_report_says_what_was_mined_and_what_was_reached(fitted: Fitted) -> None:
    report = fitted[1].header.report
    mined = [phrase for kind in ("neighbours", "beyond") for phrase, _ in report[kind]["cat"]]
    assert sorted(mined) == sorted(SETTINGS["bank"])
    assert report["gain"] == 1.0
    assert 0 < report["residual"]["cat"] < 1.5
    assert set(report["drift"]) <= {"keep", "bank"}
    assert report["loss"].keys() == {"first", "last"}


@pytest.mark.parametrize("held", ["keep", "bank"])
def test_what_weighs_more_moves_less(held: str, pipe: Any) -> None:
    def drift(weight: float) -> float:
        settings = {f"{held}_weight": weight, "steps": 0, "hard_targets": False, "s_lo": 0.95, "s_beyond": 0.9}
        moved: float = erased(pipe, **settings).header.report["drift"][held]
        return moved

    assert drift(100.0) < 0.5 * drift(0.01)


@pytest.mark.parametrize("moments", ["sampled", "analytic"])
def test_noisy_neighbours_are_checked_before_anything_is_made(moments: str, pipe: Any) -> None:
    noisy = {"sampler": "isotropic", "moments": moments, "steps": 0, "s_lo": None, "s_beyond": None}
    assert 0.9 < erased(pipe, **noisy).header.report["gain"] < 0.95
    with pytest.raises(efface.EffaceError, match=r"would shrink every unrelated feature to 0\.0\d of itself"):
        erased(pipe, **noisy, beyond=0)
    assert erased(pipe, **noisy, beyond=0, least_gain=0.0).header.report["gain"] < 0.2


def test_analytic_mining_needs_no_seed(pipe: Any) -> None:
    def made(moments: str, seed: int) -> Tensor:
        settings = SETTINGS | {"sampler": "isotropic", "moments": moments, "steps": 0, "s_lo": None, "s_beyond": None}
        found = efface.erase(pipe, "cat", anchor="dog", method="realera", settings=settings, seed=seed)
        return text_map(found)

    assert torch.equal(made("analytic", 0), made("analytic", 1))
    assert not torch.equal(made("sampled", 0), made("sampled", 1))
    assert float((made("sampled", 0) - made("analytic", 0)).norm() / made("analytic", 0).norm()) < 0.3


def test_synonyms_and_templates_are_erased_too(pipe: Any) -> None:
    settings = SETTINGS | {"steps": 0, "bank": ("bird", "house", "tree")}
    concepts = [efface.Concept("cat", "dog", ("kitten",)), efface.Concept("car", "house")]
    templates = ("{}", "a photo of {}")
    erasure = efface.erase(pipe, concepts, method="realera", templates=templates, settings=settings)
    assert list(erasure.header.report["residual"]) == [
        *("cat", "a photo of cat", "kitten", "a photo of kitten", "car", "a photo of car")
    ]


def test_more_demands_than_dimensions_are_refused(pipe: Any) -> None:
    with pytest.raises(
        efface.EffaceError, match=r"\d+ exact demands are more than the 16 dimensions.*hard_targets=false"
    ):
        erased(pipe, steps=0, hard_targets=True, hard_share=0.0, invariants="empty")


@pytest.mark.parametrize("preset", ["parity", "robust"])
def test_the_presets_run(preset: str, pipe: Any) -> None:
    quick = {name: SETTINGS[name] for name in ("trajectories", "times", "denoising_steps", "refreshes", "bank")}
    erasure = efface.erase(
        pipe, "cat", anchor="dog", method="realera", preset=preset, settings={**quick, "steps": 1, "s_hi": None}
    )
    with efface.Editor(pipe, erasure):
        assert latents(pipe).isfinite().all()


def test_a_half_precision_pipeline_keeps_its_precision() -> None:
    half = tiny_pipeline("sd1", dtype=torch.bfloat16)
    before = {name: weight.clone() for name, weight in half.unet.state_dict().items()}
    erasure = erased(half, steps=2)
    assert {tensor.dtype for tensor in erasure.tensors.values()} == {torch.float32}
    assert any(tensor.any() for name, tensor in erasure.tensors.items() if name.endswith(".up"))
    with efface.Editor(half, erasure):
        assert latents(half).dtype == torch.bfloat16
    for name, weight in half.unet.state_dict().items():
        assert torch.equal(weight, before[name])


def test_a_lora_is_made_of_its_own_erasures_only(pipe: Any) -> None:
    erasure = erased(pipe, steps=0)
    header = type(erasure.header)(**{**vars(erasure.header), "method": "uce"})
    with pytest.raises(efface.BadArtifact, match="an erasure by uce, not by realera"):
        lora(efface.Model(pipe), efface.Erasure(header, erasure.tensors))


def test_it_comes_from_its_own_distribution(fitted: Fitted) -> None:
    header = fitted[1].header
    assert (header.method, header.distribution) == ("realera", "efface-realera")
