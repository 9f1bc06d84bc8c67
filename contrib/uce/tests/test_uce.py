"""UCE on tiny pipelines: the concept becomes its anchor, what is kept stays, and it comes off again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import efface
from efface.testing import FAMILIES, tiny_pipeline

KEY = "unet.up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"


@pytest.fixture(scope="module")
def pipe() -> Any:
    return tiny_pipeline("sd1")


def latents(pipe: Any, prompt: str = "a cat") -> Tensor:
    found: Tensor = pipe(
        prompt, num_inference_steps=2, generator=torch.Generator().manual_seed(0), output_type="latent"
    ).images
    return found


def change(erasure: efface.Erasure) -> Tensor:
    """E of the map x + E x, float64."""
    tensors = {name: tensor.double() for name, tensor in erasure.tensors.items()}
    return tensors["map"] if "map" in tensors else tensors["up"] @ tensors["down"]


def word(pipe: Any, phrase: str) -> Tensor:
    """The embedding of a phrase's last token, (d,), float64."""
    encoded = efface.Model(pipe).encode_phrases([phrase], ["{}"])
    return encoded.at(encoded.subject)[0].double()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_example_of_the_readme_works_and_comes_off_bit_for_bit(family: Any) -> None:
    pipe = tiny_pipeline(family)
    plain = latents(pipe)
    erasure = efface.erase(pipe, "cat", anchor="dog", method="uce")
    assert torch.equal(latents(pipe), plain)
    with efface.Editor(pipe, erasure):
        erased = latents(pipe)
    assert not torch.allclose(erased, plain, atol=1e-3)
    assert torch.equal(latents(pipe), plain)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_erased_word_becomes_its_anchor(family: Any) -> None:
    pipe = tiny_pipeline(family)
    erasure = efface.erase(pipe, "cat", anchor="dog", method="uce", settings={"tokens": "subject", "lamb": 0.1})
    cat, dog = word(pipe, "cat"), word(pipe, "dog")
    assert (cat + change(erasure) @ cat - dog).norm() < 0.02 * (cat - dog).norm()


def test_so_does_all_that_follows_the_word_unless_only_the_word_is_asked_for(pipe: Any) -> None:
    model = efface.Model(pipe)
    cat, dog = (model.encode([prompt]).hidden[0, 1:].double() for prompt in ("cat", "dog"))

    def left(tokens: str) -> float:
        settings = {"lamb": 1e-4, "tokens": tokens}
        edit = change(efface.erase(pipe, "cat", anchor="dog", method="uce", settings=settings))
        return float((cat + cat @ edit.T - dog).norm() / (cat - dog).norm())

    assert left("tail") < 0.05 < 0.5 < left("subject")


def test_kept_prompts_move_less_than_without_keeping_them(pipe: Any) -> None:
    kept = ["a red house", "fish", "a bird in the tree"]
    free, held = (change(efface.erase(pipe, "cat", anchor="dog", method="uce", keep=keep)) for keep in ((), kept))
    for prompt in kept:
        hidden = efface.Model(pipe).encode([prompt]).hidden[0].double()
        assert (hidden @ held.T).norm() < (hidden @ free.T).norm()


def test_more_weight_on_what_is_kept_moves_it_less(pipe: Any) -> None:
    fish = word(pipe, "fish")
    moved = [
        float(
            (
                change(
                    efface.erase(
                        pipe, "cat", anchor="dog", method="uce", keep=["fish"], settings={"preserve_scale": weight}
                    )
                )
                @ fish
            ).norm()
        )
        for weight in (0, 1, 100)
    ]
    assert moved[0] > moved[1] > moved[2]


def test_fused_weights_are_those_of_the_paper(pipe: Any) -> None:
    settings = {"tokens": "subject", "lamb": 0.5, "erase_scale": 2.0, "preserve_scale": 3.0}
    concepts = [efface.Concept("cat", "dog"), efface.Concept("red car", "house")]
    erasure = efface.erase(pipe, concepts, method="uce", keep=["fish", "a tree"], settings=settings)
    weight = efface.Model(pipe).weight(KEY).double().clone()
    covariance, target = 0.5 * torch.eye(16, dtype=torch.float64), 0.5 * weight
    for concept, anchor in (("cat", "dog"), ("red car", "house")):
        c, a = word(pipe, concept), word(pipe, anchor)
        target += 2.0 * torch.outer(weight @ a, c)
        covariance += 2.0 * torch.outer(c, c)
    for prompt in ("fish", "a tree"):
        k = word(pipe, prompt)
        target += 3.0 * torch.outer(weight @ k, k)
        covariance += 3.0 * torch.outer(k, k)
    with efface.Editor(pipe, erasure) as editor:
        editor.fuse()
        torch.testing.assert_close(
            efface.Model(pipe).weight(KEY).double(), target @ torch.linalg.inv(covariance), rtol=0, atol=1e-5
        )


def test_synonyms_and_templates_add_columns(pipe: Any) -> None:
    erasure = efface.erase(
        pipe,
        "cat",
        anchor="dog",
        method="uce",
        synonyms=["kitten"],
        templates=["{}", "a photo of {}"],
        preset="parity",
    )
    assert erasure.tensors["targets"].shape == (16, 4)
    assert list(erasure.header.report["residual"]) == ["cat", "a photo of cat", "kitten", "a photo of kitten"]
    model = efface.Model(pipe)
    wanted = model.encode_phrases(["cat", "kitten"], ["{}", "a photo of {}"])
    assert torch.equal(erasure.tensors["targets"], wanted.at(wanted.subject).T)
    anchors = model.encode_phrases(["dog", "dog"], ["{}", "a photo of {}"])
    assert torch.equal(erasure.tensors["anchors"], anchors.at(anchors.subject).T)


def test_an_empty_anchor_is_the_end_of_the_text(pipe: Any) -> None:
    erasure = efface.erase(pipe, "cat", anchor="", method="uce", preset="parity")
    empty = efface.Model(pipe).encode([""])
    assert torch.equal(erasure.tensors["anchors"][:, 0], empty.hidden[0, 1])


def test_what_is_left_of_the_way_is_reported(pipe: Any) -> None:
    def left(lamb: float) -> float:
        erasure = efface.erase(pipe, "cat", anchor="dog", method="uce", settings={"lamb": lamb, "tokens": "subject"})
        return float(erasure.header.report["residual"]["cat"])

    assert 0 < left(0.01) < left(1) < left(100) < 1
    cat, dog = word(pipe, "cat"), word(pipe, "dog")
    moved = change(efface.erase(pipe, "cat", anchor="dog", method="uce", preset="parity")) @ cat
    assert left(0.5) == pytest.approx(float((cat + moved - dog).norm() / (cat - dog).norm()), abs=1e-5)


def test_a_half_precision_pipeline_keeps_its_precision() -> None:
    pipe = tiny_pipeline("sd1", dtype=torch.float16)
    before = {name: weight.clone() for name, weight in pipe.unet.state_dict().items()}
    erasure = efface.erase(pipe, "cat", anchor="dog", method="uce")
    assert {tensor.dtype for tensor in erasure.tensors.values()} == {torch.float32}
    plain = latents(pipe)
    with efface.Editor(pipe, erasure):
        erased = latents(pipe)
        assert erased.dtype == torch.float16
        assert erased.isfinite().all()
        assert not torch.equal(erased, plain)
    for name, weight in pipe.unet.state_dict().items():
        assert weight.dtype == before[name].dtype
        assert torch.equal(weight, before[name])


def test_an_erasure_fitted_in_full_precision_serves_the_half_precision_model(pipe: Any) -> None:
    erasure = efface.erase(pipe, "cat", anchor="dog", method="uce")
    half = tiny_pipeline("sd1", dtype=torch.float16)
    with efface.Editor(half, erasure) as editor:
        (planned,) = editor.plan().erasures
        assert not planned.other_base
        assert latents(half).dtype == torch.float16


def test_the_same_request_gives_the_same_erasure(pipe: Any) -> None:
    one, two = (efface.erase(pipe, "cat", anchor="dog", method="uce", keep=["fish"]) for _ in range(2))
    assert one == two


def test_saving_and_loading_changes_nothing(pipe: Any, tmp_path: Any) -> None:
    erasure = efface.erase(pipe, "cat", anchor="dog", method="uce")
    erasure.save(tmp_path / "no-cat.safetensors")
    with efface.Editor(pipe, erasure):
        wanted = latents(pipe)
    with efface.Editor(pipe, efface.Erasure.load(tmp_path / "no-cat.safetensors")):
        assert torch.equal(latents(pipe), wanted)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lamb": 0}, "'lamb' of uce must be at least 1e-06"),
        ({"erase_scale": -1}, "'erase_scale' of uce must be at least 0"),
        ({"tokens": "all"}, "'tokens' of uce must be one of tail, subject"),
        ({"lambda": 1}, "No setting 'lambda'; it has: erase_scale, lamb"),
    ],
)
def test_settings_it_cannot_take_are_refused(settings: Any, message: str, pipe: Any) -> None:
    with pytest.raises(efface.BadSetting, match=message):
        efface.erase(pipe, "cat", anchor="dog", method="uce", settings=settings)


def test_it_comes_from_its_own_distribution(pipe: Any) -> None:
    header = efface.erase(pipe, "cat", anchor="dog", method="uce").header
    assert (header.method, header.distribution) == ("uce", "efface-uce")
    assert header.points == ("unet.text",)


def test_more_columns_than_are_solved_from_at_once_give_the_map_of_all(pipe: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("efface_uce.gathered.TOGETHER", 7)
    erasure = efface.erase(pipe, ["cat", "red house", "bird"], anchor="dog", keep=["fish"], method="uce")
    tensors = {name: tensor.double() for name, tensor in erasure.tensors.items()}
    c, moved, keep = tensors["targets"], tensors["anchors"] - tensors["targets"], tensors["keep"]
    assert c.shape[1] > 2 * len(c), "or this tests nothing"
    price = c @ c.T + keep @ keep.T + 0.5 * torch.eye(len(c), dtype=torch.float64)
    assert torch.allclose(change(erasure), moved @ c.T @ torch.linalg.inv(price), atol=1e-5)
