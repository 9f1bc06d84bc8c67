"""Gated erasure: the targets that a prompt names are met exactly, and other prompts keep their bits."""

from __future__ import annotations

import string
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import efface
from efface.solver import Columns, Metric, Problem, duals
from efface_erasepro.gate import Gate
from efface_erasepro.mass import NEVER, NONE

Reads = Callable[..., Tensor]
ZERO = 1e-5
NAMES = 1.01
CONCEPTS = (
    efface.Concept("cat", "dog", synonyms=("kitten",)),
    efface.Concept("red car", "house"),
    efface.Concept("car", "tree"),
)
D, N = 64, 1000


def gated(pipe: Any, **settings: Any) -> efface.Erasure:
    given = {"gated": True, "columns": "tokens", "pads": 1, "invariants": 2, "similarity": NAMES, "budget": "none"}
    return efface.erase(pipe, CONCEPTS, keep=["a bird"], method="erasepro", settings=given | settings)


@pytest.fixture(scope="module")
def erasure(pipe: Any) -> efface.Erasure:
    return gated(pipe)


def gate(erasure: efface.Erasure, similarity: float = NAMES) -> Gate:
    return Gate(erasure.tensors, similarity)


def active(pipe: Any, erasure: efface.Erasure, prompt: str, similarity: float = NAMES) -> list[str]:
    """The phrases that a prompt's words, or their features, make active."""
    phrases = [phrase for concept in CONCEPTS for phrase in concept.phrases]
    encoded = efface.Model(pipe).encode([prompt])
    found = gate(erasure, similarity).active(encoded.hidden[0].float(), encoded.ids[0].tolist())
    return [phrases[index] for index in sorted(found)]


def distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


def test_it_is_one_edit_at_the_text_whatever_the_chain(erasure: efface.Erasure) -> None:
    assert erasure.header.points == ("unet.text",)
    assert erasure.header.report["phrases"] == 4
    assert erasure.header.report["residual"] < ZERO


@pytest.mark.parametrize(("word", "anchor"), [("cat", "dog"), ("kitten", "dog"), ("car", "tree")])
def test_a_prompt_with_a_target_is_made_from_the_anchors_text(
    pipe: Any, erasure: efface.Erasure, reads: Reads, word: str, anchor: str
) -> None:
    wanted, before = reads(pipe, anchor), reads(pipe, word)
    with efface.Editor(pipe, erasure):
        found = reads(pipe, word)
    for place in (1, 2, 3):
        assert distance(found[place], wanted[place]) < ZERO < 0.01 < distance(before[place], wanted[place])


@pytest.mark.parametrize("prompt", ["a bird", "a house in the style of gogh", ""])
def test_any_other_prompt_keeps_every_bit(pipe: Any, erasure: efface.Erasure, reads: Reads, prompt: str) -> None:
    plain = reads(pipe, prompt, guidance_scale=1)
    with efface.Editor(pipe, erasure):
        assert torch.equal(reads(pipe, prompt, guidance_scale=1), plain)


def test_the_prompts_of_one_batch_are_edited_each_for_itself(pipe: Any, erasure: efface.Erasure) -> None:
    def pictures(prompts: list[str]) -> Tensor:
        generators = [torch.Generator().manual_seed(0) for _ in prompts]
        made: Tensor = pipe(prompts, num_inference_steps=2, generator=generators, output_type="latent").images
        return made

    prompts = ["a bird", "a cat", "a tree"]
    plain = pictures(prompts)
    with efface.Editor(pipe, erasure):
        edited = pictures(prompts)
    assert torch.equal(edited[0], plain[0])
    assert torch.equal(edited[2], plain[2])
    assert not torch.allclose(edited[1], plain[1], atol=1e-4)


def test_phrases_are_found_whole_and_several_at_once(pipe: Any, erasure: efface.Erasure) -> None:
    assert active(pipe, erasure, "a red car by a kitten") == ["kitten", "red car", "car"]
    assert active(pipe, erasure, "a red house and a car") == ["car"]
    assert active(pipe, erasure, "a red house") == []


def test_a_word_that_resembles_a_target_is_found_too_unless_it_may_not_be(pipe: Any) -> None:
    near = gated(pipe, similarity=0.9)
    signature = near.tensors["signatures"][0]
    elsewhere = Gate(dict(near.tensors) | {"words": torch.full((4, 1), 9999)}, 0.9)
    text = torch.stack([signature, torch.zeros_like(signature)])
    ids = [0, 1]
    resembling = float(near.tensors["similar"][0]) < NEVER
    assert (0 in elsewhere.active(text, ids)) == resembling
    assert elsewhere.active(-text, ids) == set()


def test_words_that_others_resemble_are_found_by_name_only(pipe: Any) -> None:
    found = gated(pipe, similarity=0.0)
    assert (found.tensors["similar"] == NEVER).all()
    assert found.header.report["found by name only"] == 4


def test_embeddings_of_unknown_words_are_refused_where_names_alone_count(erasure: efface.Erasure) -> None:
    with pytest.raises(efface.BypassedError, match="words of these prompt embeddings are not known"):
        gate(erasure).active(torch.zeros(3, 16), None)


def test_embeddings_of_unknown_words_are_judged_by_resemblance(pipe: Any) -> None:
    found = gated(pipe, similarity=0.98)
    hidden = efface.Model(pipe).encode(["cat"]).hidden[0]
    assert 0 in gate(found, 0.98).active(hidden, None)


def thousand(seed: int = 0) -> dict[str, Tensor]:
    """What a fit of a thousand words stores, of synthetic features: two columns each, and one invariant."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    targets, anchors, still = random(D, 2 * N), random(D, 2 * N), random(D, 1)
    hard = Columns.joined([Columns.still(still), Columns.pairs(targets, anchors)])
    problem = Problem(hard=hard, keep=random(D, 200), lamb=0.1)
    return {
        "targets": hard.inputs.float(),
        "change": hard.change.float(),
        "duals": duals(problem, Metric.of(problem)).float(),
        "owners": torch.cat([torch.tensor([NONE]), torch.arange(N).repeat_interleave(2)]),
        "words": torch.arange(N)[:, None] + 10,
        "signatures": torch.nn.functional.normalize(targets[:, ::2].T, dim=1).float(),
        "similar": torch.full((N,), NEVER),
    }


class FakeCall:
    """The part of a call that a gate reads."""

    def __init__(self, text: Tensor, ids: Tensor) -> None:
        self.text, self.ids = text, ids


def test_of_a_thousand_concepts_the_active_ones_leave_no_residual() -> None:
    tensors = thousand()
    chosen = [3, 500, 999]
    text, ids = torch.randn(2, 7, D, generator=torch.Generator().manual_seed(1)), torch.zeros(2, 7, dtype=torch.int64)
    for place, concept in enumerate(chosen):
        text[0, place] = tensors["targets"][:, 1 + 2 * concept]
        ids[0, place] = 10 + concept
    text[1, 0, 0] = -0.0
    found = Gate(tensors, NAMES).moves(FakeCall(text, ids))  # type: ignore[arg-type]
    assert found is not None
    edited = found(text)
    assert torch.equal(edited[1].view(torch.int32), text[1].view(torch.int32))
    for place, concept in enumerate(chosen):
        wanted = text[0, place] + tensors["change"][:, 1 + 2 * concept]
        assert distance(edited[0, place], wanted) < ZERO
    assert found.up.shape[2] <= 2 * len(chosen) + 1


def test_a_phrase_is_found_wherever_it_stands() -> None:
    thousands = Gate(thousand(), NAMES)
    for ids in ([12], [0, 12], [12, 0], [0, 12, 0]):
        assert thousands.active(torch.zeros(3, D), ids) == {2}


def test_without_any_of_a_thousand_concepts_nothing_is_built() -> None:
    text = torch.randn(2, 7, D, generator=torch.Generator().manual_seed(1))
    assert Gate(thousand(), NAMES).moves(FakeCall(text, torch.zeros(2, 7, dtype=torch.int64))) is None  # type: ignore[arg-type]


def test_a_fit_holds_many_concepts(pipe: Any) -> None:
    """More of them than the text has dimensions, which no single map could serve."""
    words = [f"{one}{other}" for one in string.ascii_lowercase[:5] for other in string.ascii_lowercase[5:10]]
    concepts = [efface.Concept(word, "dog") for word in words]
    settings = {"gated": True, "columns": "tokens", "pads": 1, "invariants": 1, "similarity": NAMES, "budget": "none"}
    erasure = efface.erase(pipe, concepts, method="erasepro", settings=settings)
    assert erasure.header.report["phrases"] == len(words) > 16
    assert erasure.header.report["residual"] < ZERO
    assert erasure.header.report["softened"] == {}
