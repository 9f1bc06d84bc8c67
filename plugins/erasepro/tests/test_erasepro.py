"""ErasePro on tiny pipelines: the concept becomes its anchor exactly, what stays stays, and the report says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import efface
from efface.solver import ConflictError
from efface.testing import FAMILIES, tiny_pipeline
from efface_erasepro.batch import Choice, batch

Erase = Callable[..., efface.Erasure]
Reads = Callable[..., Tensor]

ZERO = 1e-5
KEYS = ["unet.*attn2.to_k", "unet.*attn2.to_v"]


def distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


def point(erasure: efface.Erasure, name: str) -> dict[str, Any]:
    return next(one for one in erasure.header.report["modules"] if one["point"] == name)


def closing(erasure: efface.Erasure) -> Tensor:
    """E of the closing step, float64."""
    tensors = {name: tensor.double() for name, tensor in erasure.tensors.items()}
    return tensors["closing.map"] if "closing.map" in tensors else tensors["closing.up"] @ tensors["closing.down"]


@pytest.mark.parametrize(("family", "clip_skip"), [("sd1", None), ("sd2", None), ("sdxl", None), ("sdxl", 1)])
def test_the_picture_is_made_from_the_anchors_text(
    family: Any, clip_skip: int | None, erase: Erase, reads: Reads
) -> None:
    """Also where the text is not the encoder's last layer: SDXL's is its last but one, and clip-skip counts on."""
    pipe = tiny_pipeline(family)
    wanted = reads(pipe, "dog", clip_skip=clip_skip)
    before = reads(pipe, "cat", clip_skip=clip_skip)
    with efface.Editor(pipe, erase(pipe, clip_skip=clip_skip)):
        found = reads(pipe, "cat", clip_skip=clip_skip)
    for place in (1, 2, 3):
        assert distance(found[place], wanted[place]) < ZERO < 0.05 < distance(before[place], wanted[place])


def test_fitted_for_another_clip_skip_it_leaves_a_residual(erase: Erase, reads: Reads) -> None:
    pipe = tiny_pipeline("sdxl")
    wanted = reads(pipe, "dog", clip_skip=1)
    with efface.Editor(pipe, erase(pipe)):
        assert distance(reads(pipe, "cat", clip_skip=1)[1], wanted[1]) > 100 * ZERO


@pytest.mark.parametrize("family", FAMILIES)
def test_the_start_and_the_padding_of_the_empty_prompt_stay(family: Any, erase: Erase, reads: Reads) -> None:
    pipe = tiny_pipeline(family)
    empty, cat = reads(pipe, "", guidance_scale=1), reads(pipe, "cat")
    with efface.Editor(pipe, erase(pipe, invariants=3, chain=["unet.text"])):
        edited = reads(pipe, "", guidance_scale=1)
        for place in (0, 1, 15):
            assert distance(edited[place], empty[place]) < 1e-6
        assert distance(reads(pipe, "cat")[0], cat[0]) < 1e-6


def test_without_invariants_they_would_move(pipe: Any, erase: Erase, reads: Reads) -> None:
    empty = reads(pipe, "", guidance_scale=1)
    with efface.Editor(pipe, erase(pipe, invariants=0, chain=["unet.text"])):
        assert distance(reads(pipe, "", guidance_scale=1)[15], empty[15]) > 1e-4


def test_held_prompts_stay_exactly_and_kept_ones_nearly(pipe: Any, erase: Erase, reads: Reads) -> None:
    bird, tree = reads(pipe, "bird"), reads(pipe, "tree")
    plain, held, kept = ({}, {"hold": ["bird"]}, {"keep": ["tree"], "keep_weight": 100.0})
    moved = []
    for settings in (plain, held, kept):
        with efface.Editor(pipe, erase(pipe, chain=["unet.text"], invariants=1, **settings)):
            moved.append([distance(reads(pipe, word)[1], base[1]) for word, base in (("bird", bird), ("tree", tree))])
    assert moved[1][0] < 1e-6 < 1e-3 < moved[0][0]
    assert moved[2][1] < moved[0][1]


def test_one_map_at_the_text_is_the_same_as_one_at_every_key_and_value(pipe: Any, erase: Erase) -> None:
    prompts = ["a cat in the house"]
    pictures = []
    for chain in (["unet.text"], KEYS):
        with efface.Editor(pipe, erase(pipe, chain=chain)):
            made = pipe(
                prompts, num_inference_steps=2, generator=torch.Generator().manual_seed(0), output_type="latent"
            )
            pictures.append(made.images)
    assert torch.allclose(*pictures, atol=1e-5)


def test_an_edit_of_keys_and_values_touches_them_and_nothing_else(pipe: Any, erase: Erase) -> None:
    found = erase(pipe, chain=KEYS).header.points
    assert set(found) == {place.name for place in efface.points(pipe, "cross_attn.k", "cross_attn.v")}


def test_the_default_touches_the_text_encoder_and_the_text(pipe: Any) -> None:
    found = efface.erase(pipe, "cat", anchor="dog", method="erasepro").header.points
    kinds = [place.kind for place in efface.points(pipe) if place.name in found]
    assert kinds == ["text_encoder.v", "text_encoder.fc2"] * 3 + ["text"]


def test_of_sdxl_it_touches_both_encoders_but_their_last_blocks_and_the_pooled_text() -> None:
    erasure = efface.erase(tiny_pipeline("sdxl"), "cat", anchor="dog", method="erasepro")
    assert [name for name in erasure.header.points if ".layers.2." in name] == []
    for component in ("text_encoder.", "text_encoder_2."):
        assert len([name for name in erasure.header.points if name.startswith(f"{component}layers")]) == 4
    assert "text_encoder_2.text_projection" in erasure.header.points
    assert len(erasure.header.report["unread"]) == 4


def test_the_pooled_text_of_sdxl_becomes_the_anchors(erase: Erase) -> None:
    pipe = tiny_pipeline("sdxl")
    model = efface.Model(pipe)
    base, wanted = (model.encode([word]).pooled for word in ("cat", "dog"))
    assert base is not None
    assert wanted is not None
    with efface.Editor(pipe, erase(pipe)):
        found = model.encode(["cat"]).pooled
    assert found is not None
    assert distance(found, wanted) < ZERO < 0.01 < distance(base, wanted)
    with efface.Editor(pipe, erase(pipe, pooled=False, chain=["unet.text"])):
        assert torch.equal(model.encode(["cat"]).pooled, base)  # type: ignore[arg-type]


def test_averages_become_the_averages_of_the_anchors(pipe: Any, erase: Erase) -> None:
    """What is exact under `averages` is the mean over templates of each kind of token."""
    settings = {"columns": "averages", "templates": 8, "pads": 99}
    erasure = erase(pipe, **settings)
    assert point(erasure, "closing")["zero"]
    model = efface.Model(pipe)
    request = efface.Request((efface.Concept("cat", anchor="dog"),))
    from efface_erasepro.templates import templates

    prompts = batch(model, request, templates(request, 8), Choice("tail", 99, 1, (), True, 1.0))
    assert point(erasure, "closing")["exact"] == len(prompts.column_labels) == 4
    anchors = prompts.anchors.features(model.encode(prompts.prompts, 1000).hidden)
    with efface.Editor(pipe, erasure):
        hidden = model.encode(prompts.prompts, 1000).hidden
    targets = prompts.targets.features(hidden)
    targets = targets + closing(erasure) @ targets
    for column, label in enumerate(prompts.column_labels):
        mine = prompts.columns == column
        weights = prompts.targets.weights[mine] / prompts.targets.weights[mine].sum()
        assert distance(targets[:, mine] @ weights, anchors[:, mine] @ weights) < ZERO, label
    assert distance(targets, anchors) > 100 * ZERO


def test_many_words_are_erased_at_once_each_onto_its_own_anchor(pipe: Any, reads: Reads) -> None:
    concepts = [efface.Concept("cat", "dog", synonyms=("kitten",)), efface.Concept("car", "house")]
    settings = {"columns": "tokens", "templates": 1, "pads": 1, "invariants": 1, "prior": 0, "budget": "none"}
    wanted = {word: reads(pipe, word) for word in ("dog", "house")}
    erasure = efface.erase(pipe, concepts, method="erasepro", settings=settings | {"chain": "unet.text"})
    with efface.Editor(pipe, erasure):
        for word, anchor in (("cat", "dog"), ("car", "house")):
            assert distance(reads(pipe, word)[1], wanted[anchor][1]) < ZERO


def test_the_report_says_what_is_left_before_and_after_the_closing_step(pipe: Any, erase: Erase) -> None:
    report = erase(pipe, damping=0.3).header.report
    assert set(report["residual"]) == set(report["residual before closing"]) == {"cat"}
    assert report["residual"]["cat"] < ZERO < report["residual before closing"]["cat"]
    for one in report["modules"]:
        assert set(one) >= {"point", "residual", "change", "conflicts", "zero", "dtype", "rank", "out of reach"}
        assert one["change"] > 0
    assert [one["zero"] for one in report["modules"]] == [False] * 6 + [True]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_claims_no_zero_and_keeps_its_factors_in_float32(dtype: torch.dtype, erase: Erase) -> None:
    erasure = erase(tiny_pipeline("sd1", dtype=dtype))
    assert not any(one["zero"] for one in erasure.header.report["modules"])
    assert point(erasure, "closing")["residual"]["fused"] > ZERO
    assert {one["dtype"] for one in erasure.header.report["modules"]} == {str(dtype).removeprefix("torch.")}
    assert {tensor.dtype for tensor in erasure.tensors.values()} == {torch.float32}


def test_two_anchors_for_nearly_the_same_text_are_refused_by_name_if_asked(pipe: Any) -> None:
    """The first words of these phrases have the same text: a causal encoder has not seen the rest."""
    concepts = [efface.Concept("red cat", "dog"), efface.Concept("red car", "house")]
    settings = {"columns": "tokens", "positions": "span", "templates": 1, "prior": 0, "chain": "unet.text"}
    with pytest.raises(ConflictError, match=r"'red cat \[phrase 1\]' and 'red car \[phrase 1\]'"):
        efface.erase(pipe, concepts, method="erasepro", settings=settings | {"conflicts": "refuse"})
    softened = point(efface.erase(pipe, concepts, method="erasepro", settings=settings), "closing")["softened"]
    assert softened["red car [phrase 1]"] is None


def test_the_same_request_gives_the_same_bits_and_another_seed_another_prior(pipe: Any) -> None:
    def tensors(**options: Any) -> dict[str, Tensor]:
        return dict(efface.erase(pipe, "cat", anchor="dog", method="erasepro", **options).tensors)

    first, again, other = tensors(), tensors(), tensors(seed=1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(first[name].shape != other[name].shape or not torch.equal(first[name], other[name]) for name in first)
    without = [tensors(seed=seed, settings={"prior": 0}) for seed in (0, 1)]
    assert all(torch.equal(without[0][name], without[1][name]) for name in without[0])


def test_parity_keeps_nothing_and_edits_the_text_encoder_alone(pipe: Any, erase: Erase) -> None:
    erasure = erase(pipe, preset="parity")
    settings = erasure.header.settings
    assert (settings["damping"], settings["keep_weight"], settings["prior"], settings["columns"]) == (0, 0, 0, "tokens")
    assert all(name.startswith("text_encoder.") for name in erasure.header.points)
    assert "closing.up" not in erasure.tensors
    assert erasure.header.report["residual"] == erasure.header.report["residual before closing"]


def test_the_robust_preset_is_the_default(pipe: Any) -> None:
    one, other = (efface.erase(pipe, "cat", anchor="dog", method="erasepro", preset=name) for name in ("robust", None))
    assert one.header.settings == other.header.settings


def test_an_empty_anchor_is_the_text_of_nothing(pipe: Any, erase: Erase, reads: Reads) -> None:
    wanted = reads(pipe, "", guidance_scale=1)
    with efface.Editor(pipe, erase(pipe, anchor="")):
        assert distance(reads(pipe, "cat")[1], wanted[1]) < ZERO
