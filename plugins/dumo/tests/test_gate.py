"""The prompt gate: its scores, and which rows of a pass they open the branch for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import efface
from efface_dumo.gate import Gate, overlap, similarity
from efface_dumo.retuned import retuned
from efface_dumo.side import Side

Maker = Callable[..., efface.Erasure]
Run = Callable[..., Tensor]
SPECIAL = frozenset({0, 9})


def gate(kind: Any = "both", factor: float = 1.0, threshold: float = 0.0) -> Gate:
    """Names: tokens 1 2 along the first axis, token 3 along the second."""
    embeddings = torch.tensor([[[1.0, 0.0]], [[0.0, 2.0]]])
    return Gate(kind, factor, threshold, embeddings, [[0, 1, 2, 9], [0, 3, 9, 9]], SPECIAL)


def test_similarity_is_the_cosine_over_all_tokens() -> None:
    found = similarity(torch.tensor([[[3.0, 4.0]]]), gate().embeddings)
    torch.testing.assert_close(found, torch.tensor([[0.6, 0.8]]))


def test_overlap_is_the_share_of_the_names_own_tokens() -> None:
    prompts = [[0, 1, 1, 9], [0, 2, 1, 3], [0, 9, 9, 9]]
    assert overlap(prompts, gate().ids, SPECIAL).tolist() == [[0.5, 0.0], [1.0, 1.0], [0.0, 0.0]]


@pytest.mark.parametrize(("kind", "strength"), [("similarity", 0.8), ("overlap", 0.5), ("both", 0.8)])
def test_the_best_score_over_the_names_counts(kind: str, strength: float) -> None:
    found = gate(kind).of(torch.tensor([[[3.0, 4.0]]]), [[0, 1, 9, 9]])
    assert found.tolist() == pytest.approx([strength])


def test_the_name_itself_opens_the_gate_fully_and_a_factor_multiplies() -> None:
    own = torch.tensor([[[5.0, 0.0]]])
    assert gate().of(own, [[0, 1, 2, 9]]).tolist() == [1.0]
    assert gate(factor=0.25).of(own, [[0, 1, 2, 9]]).tolist() == [0.25]


def test_below_the_threshold_it_is_closed() -> None:
    prompts = torch.tensor([[[3.0, 4.0]]])
    assert gate("similarity", threshold=0.8).of(prompts, [[0]]).tolist() == pytest.approx([0.8])
    assert gate("similarity", threshold=0.81).of(prompts, [[0]]).tolist() == [0.0]


# In a pipeline


@pytest.fixture
def strengths(monkeypatch: pytest.MonkeyPatch) -> list[Tensor | None]:
    """Every m that was found out, one for each prompt."""
    seen: list[Tensor | None] = []
    plain = Side.opening

    def listened(self: Side, call: efface.Call) -> Any:
        found = plain(self, call)
        seen.append(found[0])
        return found

    monkeypatch.setattr(Side, "opening", listened)
    return seen


@pytest.fixture
def run(attached: Any) -> Run:
    """A short generation with an erasure on."""

    def run(pipe: Any, erasure: efface.Erasure, prompt: Any, **options: Any) -> Tensor:
        with attached(pipe, erasure):
            return latents(pipe, prompt, **options)

    return run


def latents(pipe: Any, prompt: Any, **options: Any) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    found: Tensor = pipe(prompt, num_inference_steps=2, generator=generator, output_type="latent", **options).images
    return found


def test_both_halves_of_guidance_have_their_prompts_strength(
    pipe: Any, invented: Maker, run: Run, strengths: list[Tensor]
) -> None:
    run(pipe, invented(pipe, "cat", gate="overlap"), ["a cat", "a dog"], guidance_scale=5.0)
    (found,) = strengths
    assert found.tolist() == [1.0, 0.0, 1.0, 0.0]


def test_without_guidance_every_row_has_its_own(sd1: Any, invented: Maker, run: Run, strengths: list[Tensor]) -> None:
    run(sd1, invented(sd1, "red cat", gate="overlap"), ["a cat", "a red cat", "a dog"], guidance_scale=1.0)
    (found,) = strengths
    assert found.tolist() == [0.5, 1.0, 0.0]


def test_it_is_found_out_once_for_a_prompt(sd1: Any, invented: Maker, run: Run, strengths: list[Tensor]) -> None:
    run(sd1, invented(sd1, gate="both"), "a cat")
    assert len(strengths) == 1


def test_a_synonym_opens_it_too(sd1: Any, invented: Maker, run: Run, strengths: list[Tensor]) -> None:
    concept = efface.Concept("cat", synonyms=("kitten",))
    run(sd1, invented(sd1, gate="overlap", concept=concept), "a kitten", guidance_scale=1.0)
    assert strengths[0].tolist() == [1.0]


def test_an_unrelated_prompt_behind_a_closed_gate_is_untouched(sd1: Any, invented: Maker, run: Run) -> None:
    plain = latents(sd1, "a dog")
    assert torch.equal(run(sd1, invented(sd1, gate="overlap"), "a dog"), plain)
    assert not torch.equal(run(sd1, invented(sd1), "a dog"), plain)


def test_embeddings_of_unknown_origin_pass_in_full(
    sd1: Any, invented: Maker, run: Run, strengths: list[Tensor | None]
) -> None:
    embeddings = sd1.encode_prompt("a dog", "cpu", 1, True)
    options = {"prompt_embeds": embeddings[0], "negative_prompt_embeds": embeddings[1]}
    run(sd1, invented(sd1, gate="overlap"), None, **options)
    assert strengths == [None]
    run(sd1, invented(sd1, gate="overlap", gate_factor=0.5), None, **options)
    assert strengths[1] is not None
    assert strengths[1].tolist() == [0.5, 0.5]


def test_the_gate_of_an_erasure_can_be_set_anew(sd1: Any, invented: Maker) -> None:
    open_one = invented(sd1)
    gated = retuned(open_one, gate="overlap", gate_threshold=0.5)
    assert gated.tensors is open_one.tensors
    assert gated == invented(sd1, gate="overlap", gate_threshold=0.5)
    assert retuned(gated, gate="off", gate_threshold=0.0) == open_one
    with pytest.raises(efface.BadSetting, match="'eta' cannot be set after the fit; these can: gate, gate_factor"):
        retuned(open_one, eta=1.0)
    with pytest.raises(efface.BadSetting, match="gate_threshold"):
        retuned(open_one, gate_threshold=2)
