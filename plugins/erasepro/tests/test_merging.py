"""Merged, gated erasures keep each concept as it was fitted, and are exact where a prompt names several of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

import efface
from efface.solver import Columns, Metric, Problem, duals
from efface.testing import FAMILIES, tiny_pipeline
from efface_erasepro.gate import Gate
from efface_erasepro.mass import NONE, columns_of, parts_of

Reads = Callable[..., Tensor]
ZERO = 1e-5
SETTINGS = {"gated": True, "columns": "tokens", "pads": 1, "invariants": 2, "similarity": 1.01, "budget": "none"}
CATS = (efface.Concept("cat", "dog", synonyms=("kitten",)), efface.Concept("red car", "house"))
FISH, SKULL = efface.Concept("fish", "tree"), efface.Concept("skull", "flower")


def fit(
    pipe: Any,
    *concepts: efface.Concept,
    keep: Sequence[str] = ("a bird",),
    templates: Sequence[str] = ("{}",),
    **settings: Any,
) -> efface.Erasure:
    given = SETTINGS | settings
    return efface.erase(pipe, concepts, keep=keep, templates=templates, method="erasepro", settings=given)


def all_of(pipe: Any) -> list[efface.Erasure]:
    """Three files whose metrics differ: other prompts are kept."""
    return [fit(pipe, *CATS), fit(pipe, FISH, keep=["a house", "a tree"]), fit(pipe, SKULL, keep=[])]


@pytest.fixture(scope="module")
def files(pipe: Any) -> list[efface.Erasure]:
    return all_of(pipe)


def same_tensors(one: efface.Erasure, other: efface.Erasure) -> bool:
    return one.tensors.keys() == other.tensors.keys() and all(
        torch.equal(one.tensors[name], tensor) for name, tensor in other.tensors.items()
    )


def pictures(pipe: Any, erasure: efface.Erasure, prompts: Sequence[str]) -> Tensor:
    generators = [torch.Generator().manual_seed(0) for _ in prompts]
    with efface.Editor(pipe, erasure):
        made: Tensor = pipe(list(prompts), num_inference_steps=2, generator=generators, output_type="latent").images
    return made


@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_of_one_files_concepts_are_changed_as_by_that_file(family: Any) -> None:
    pipe = tiny_pipeline(family)
    files = all_of(pipe)
    merged = efface.compose(*files)
    for erasure, prompts in zip(files, (["a cat", "red car by a kitten"], ["a fish"], ["a skull"]), strict=True):
        wanted = pictures(pipe, erasure, prompts)
        others = [one for one in files if one is not erasure]
        assert torch.equal(pictures(pipe, merged, prompts), wanted)
        assert not any(torch.equal(pictures(pipe, one, prompts), wanted) for one in others)


@pytest.mark.parametrize("prompt", ["a cat and a fish", "a fish, a skull", "the skull of a kitten"])
def test_a_prompt_that_names_concepts_of_two_files_leaves_no_residual_of_either(
    prompt: str, pipe: Any, files: list[efface.Erasure]
) -> None:
    """Of all their columns, and of what stays, whichever file it is from."""
    tensors = efface.compose(*files).tensors
    gate, encoded = Gate(tensors, 1.01), efface.Model(pipe).encode([prompt])
    active = gate.active(encoded.hidden[0].float(), encoded.ids[0].tolist())
    assert len(active) == len(parts_of(tensors)[list(active)].unique()) == 2
    moves = gate.moves(FakeCall(encoded.hidden, encoded.ids))  # type: ignore[arg-type]
    assert moves is not None
    owners = tensors["owners"]
    mine = (owners < 0) | torch.isin(owners, torch.tensor(list(active)))
    change = (moves.up[0].double() @ moves.down[0].double()) @ tensors["targets"][:, mine].double()
    asked = tensors["change"][:, mine].double()
    assert float((change - asked).norm(dim=0).max() / asked.norm(dim=0).max()) < ZERO


@dataclass(frozen=True)
class FakeCall:
    """The part of a call that a gate reads."""

    text: Tensor
    ids: Tensor


def test_its_own_invariants_stay_with_each_file(files: list[efface.Erasure]) -> None:
    merged = efface.compose(*files)
    assert parts_of(merged.tensors).tolist() == [0, 0, 0, 1, 2]
    assert [int((merged.tensors["owners"] == NONE - part).sum()) for part in range(3)] == [2, 2, 2]
    for phrase, erasure, own in ((1, files[0], 1), (3, files[1], 0), (4, files[2], 0)):
        for name in ("targets", "change", "duals"):
            found = merged.tensors[name][:, columns_of(merged.tensors, [phrase])]
            assert torch.equal(found, erasure.tensors[name][:, columns_of(erasure.tensors, [own])])


def test_of_several_files_the_first_ones_invariants_count(files: list[efface.Erasure]) -> None:
    """They are the same tokens in all of them, up to the rounding of the batches that they were read in."""
    merged = efface.compose(*files)
    chosen = merged.tensors["owners"][columns_of(merged.tensors, [4, 3])]
    assert set(chosen.tolist()) == {-2, 3, 4}


@pytest.mark.parametrize("noise", [0.0, 1e-7, 1e-5])
def test_rounding_of_what_stays_does_not_make_a_map_of_two_files_larger(noise: float) -> None:
    first, second = part(0, 0.0), part(1, noise)
    tensors = {name: torch.cat([first[name], second[name]], 1) for name in ("targets", "change", "duals")}
    tensors |= {
        "owners": torch.tensor([-1, -1, 0, 0, -2, -2, 1, 1]),
        "parts": torch.tensor([0, 1]),
        "words": torch.tensor([[10], [11]]),
        "signatures": torch.eye(2, 64),
        "similar": torch.full((2,), 2.0),
    }
    one, other, both = (float(Gate(tensors, 1.01)._map(active).dense().norm()) for active in ({0}, {1}, {0, 1}))
    assert both < 2 * max(one, other)


def part(number: int, noise: float) -> dict[str, Tensor]:
    """Two columns and two invariants, which differ between parts by noise, and their duals for a metric of its own."""

    def random(count: int, seed: int) -> Tensor:
        return torch.randn(64, count, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))

    still = random(2, 0) * (1 + noise * random(2, 1 + number))
    hard = Columns.joined([Columns.still(still), Columns.pairs(random(2, 10 + number), random(2, 20 + number))])
    problem = Problem(hard=hard, keep=random(40, 30 + number), lamb=0.1)
    found = {"targets": hard.inputs, "change": hard.change, "duals": duals(problem, Metric.of(problem))}
    return {name: tensor.float() for name, tensor in found.items()}


@pytest.mark.parametrize(
    ("gone", "prompts"),
    [(["fish"], ["a cat and a skull", "a kitten"]), (["cat"], ["red car by a fish", "a skull", "a fish"])],
)
def test_without_a_concept_prompts_that_name_others_keep_every_bit(
    gone: list[str], prompts: list[str], pipe: Any, files: list[efface.Erasure]
) -> None:
    merged = efface.compose(*files)
    fewer = efface.compose(merged, remove=gone)
    assert torch.equal(pictures(pipe, fewer, prompts), pictures(pipe, merged, prompts))
    assert not torch.equal(pictures(pipe, fewer, gone), pictures(pipe, merged, gone))


def test_what_was_taken_out_is_not_changed_any_more(pipe: Any, files: list[efface.Erasure], reads: Reads) -> None:
    fewer = efface.compose(files[0], remove=["cat"])
    for prompt, stays in (("kitten", True), ("red car", False)):
        plain = reads(pipe, prompt)
        with efface.Editor(pipe, fewer):
            assert torch.equal(reads(pipe, prompt), plain) == stays


@pytest.mark.parametrize("index", range(3))
def test_merged_and_taken_out_again_it_is_the_file_that_was_there(index: int, files: list[efface.Erasure]) -> None:
    gone = [concept.text for other in files if other is not files[index] for concept in other.concepts]
    again = efface.compose(efface.compose(*files), remove=gone)
    assert same_tensors(again, files[index])
    for field in ("facts", "request", "seed", "settings", "points", "tensors"):
        assert getattr(again.header, field) == getattr(files[index].header, field)


def test_one_by_one_it_is_the_same_as_at_once(files: list[efface.Erasure]) -> None:
    at_once = efface.compose(*files)
    assert same_tensors(efface.compose(efface.compose(*files[:2]), files[2]), at_once)
    assert same_tensors(efface.compose(files[0], efface.compose(*files[1:])), at_once)
    fewer = efface.compose(at_once, remove=["red car", "fish"])
    assert same_tensors(fewer, efface.compose(efface.compose(files[0], remove=["red car"]), files[2]))


def test_it_comes_back_from_its_file(files: list[efface.Erasure], tmp_path: Any) -> None:
    merged = efface.compose(*files)
    merged.save(tmp_path / "all.safetensors")
    assert efface.Erasure.load(tmp_path / "all.safetensors") == merged


def test_the_report_is_of_the_phrases_that_are_there(files: list[efface.Erasure]) -> None:
    report = efface.compose(*files).header.report
    assert (report["phrases"], report["columns"]) == (5, sum(one.header.report["columns"] for one in files))
    assert report["residual"] < ZERO
    assert report["found by name only"] == sum(one.header.report["found by name only"] for one in files)


@pytest.mark.parametrize("columns", ["averages", "tokens"])
def test_what_was_not_met_is_told_until_it_is_gone(columns: str, pipe: Any) -> None:
    options = {"columns": columns, "budget": 0.0, "templates": ["the {}", "a photo of {}"]}
    poor, rich = (fit(pipe, *concepts, **options) for concepts in (CATS, (FISH,)))
    softened = [one.header.report["softened"] for one in (poor, rich)]
    assert all(softened)
    assert efface.compose(poor, rich).header.report["softened"] == softened[0] | softened[1]
    left = efface.compose(poor, rich, remove=["cat"]).header.report["softened"]
    assert left == {label: price for label, price in softened[0].items() if "red car" in label} | softened[1]


def test_a_phrase_that_two_files_erase_is_refused(pipe: Any, files: list[efface.Erasure]) -> None:
    with pytest.raises(efface.BadConcept, match="erases 'Kitten' twice"):
        efface.compose(files[0], fit(pipe, efface.Concept("Kitten", "tree")))


def test_maps_that_hold_all_concepts_at_once_are_not_merged(pipe: Any, erase: Callable[..., efface.Erasure]) -> None:
    each = [erase(pipe, concept, anchor="tree") for concept in ("cat", "skull")]
    with pytest.raises(efface.EffaceError, match="ErasePro merges fits with gated=true only"):
        efface.compose(*each)
