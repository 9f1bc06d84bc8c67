"""Searches bring back what an edit hides, and leave pipeline and erasures as they were."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

import efface
from efface.attack import Attack, attack, search_of
from efface.attack.inversion import Inversion
from efface.attack.likeness import Likeness
from efface.attack.substitution import Substitution
from efface.attack.words import embeddings, meaning, placeholders, words
from efface.generating import generate
from efface.method import silent
from efface.report.imprint import weights_digest
from efface.testing import FAMILIES, tiny_pipeline
from efface.testing.state import State

FAST = {"steps": 2, "batch_size": 4, "seeds": range(3)}


@dataclass(frozen=True)
class Named:
    """Zeroes the text of prompts that hold the token of "cat", so that another word for it goes around."""

    name: ClassVar[str] = "named"

    def fit(self, model: efface.Model, request: efface.Request, run: efface.Run) -> efface.Fit:
        ids = model.pipe.tokenizer(request.concepts[0].text, add_special_tokens=False).input_ids
        return efface.Fit({"ids": torch.tensor(ids)})

    def apply(self, patch: efface.Patch, fits: Sequence[efface.Fitted]) -> None:
        (token,) = fits[0].fit.tensors["ids"].tolist()

        def hide(text: torch.Tensor, call: efface.Call) -> torch.Tensor:
            named = (call.ids == token).any(1) if call.ids is not None else torch.ones(len(text), dtype=torch.bool)
            return torch.where(named[:, None, None], torch.zeros_like(text), text)

        patch.output("unet.text", hide)


class Plugin:
    @efface.hookimpl
    def efface_methods(self) -> list[type]:
        return [Named]


REGISTRY = efface.Registry([Plugin()])


class Judge(efface.Suite):
    """Takes bright pictures for cats."""

    name, summary, digest, guidance = "judge", "brightness", "1", 3.0
    example = efface.Request((efface.Concept("cat"),))

    def accepts(self, model: efface.Model) -> bool:
        return True

    def concepts(self, kind: Any = None) -> list[efface.SuiteConcept]:
        return [efface.SuiteConcept("cat", synonyms=("kitten",)), efface.SuiteConcept("dog")]

    def templates(self, kind: Any) -> list[str]:
        return ["a {}"]

    def found(self, images: Sequence[Any], concept: str) -> Any:
        return np.array([np.asarray(image).mean() / 255 * 2 for image in images])


@pytest.fixture(scope="module", params=FAMILIES)
def pipe(request: pytest.FixtureRequest) -> Any:
    return tiny_pipeline(request.param)


@pytest.fixture(scope="module")
def small() -> Any:
    return tiny_pipeline("sd1")


def edited(pipe: Any) -> efface.Editor:
    return efface.Editor(pipe, efface.erase(pipe, "cat", method=Named(), registry=REGISTRY), registry=REGISTRY)


@pytest.mark.parametrize("search", [Inversion(steps=2, batch=1), Substitution(rounds=2, tries=2, batch=1)])
def test_an_attack_leaves_everything_as_it_was(pipe: Any, search: Any) -> None:
    generate(pipe, ["a cat"], [0], steps=1)  # a pipeline notes its last call
    with edited(pipe) as editor:
        before, entries = State.of(pipe), list(editor.entries)
        attack(pipe, "cat", search=search, **FAST)
        assert before.changed(State.of(pipe)) == ""
        assert list(editor.entries) == entries
        assert editor.verify() == []
    assert all(weight.requires_grad for weight in pipe.unet.parameters())


def test_new_words_go_around_an_edit_that_knows_the_name(small: Any) -> None:
    """They explain the pictures better than the name does, whose text the edit takes away."""
    model = efface.Model(small)
    likeness = Likeness(model, torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(0)))
    given = likeness.drawn(16, torch.Generator().manual_seed(0))
    with edited(small):
        found = Inversion(words=1, steps=40, rate=0.05).search(likeness, "cat", "a picture of {}", 1, silent)
        with torch.no_grad(), found.understood(small) as prompt:
            by_words = likeness.loss(model.encode([prompt]), given)
        with torch.no_grad():
            by_name = likeness.loss(model.encode(["a picture of cat"]), given)
    assert "cat" not in found.prompt
    assert by_words < by_name


def test_the_first_vectors_are_the_concepts_own(small: Any) -> None:
    """Without a step the new word means what the concept does, and the name's edit does not see it."""
    with edited(small):
        found = attack(small, "cat", search=Inversion(words=1, steps=1, rate=0.0), template="a {}", **FAST).found
    with torch.no_grad(), found.understood(small) as prompt:
        assert torch.equal(efface.Model(small).encode([prompt]).hidden, efface.Model(small).encode(["a cat"]).hidden)


def test_a_search_lowers_its_loss(small: Any) -> None:
    losses = attack(small, "cat", search=Substitution(rounds=6, tries=4, batch=2), **FAST).found.losses
    assert len(losses) == 7
    assert list(losses) == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("search", ["inversion", "substitution"])
def test_the_same_seed_finds_the_same(small: Any, search: str) -> None:
    settings = {"steps": 3} if search == "inversion" else {"rounds": 3, "tries": 2}
    one, two, other = (
        attack(small, "cat", search=search_of(search, settings), seed=seed, **FAST).found.losses for seed in (0, 0, 1)
    )
    assert one == two != other


def test_shares_are_judged_before_and_after_and_without_the_erasures(small: Any) -> None:
    with edited(small):
        found = attack(small, "cat", search=Inversion(steps=1), suite=Judge(), **FAST)
    shares = [found.base, found.erased, found.success, found.upper]
    assert [share.n for share in shares if share is not None] == [3, 3, 3, 3]
    assert json.loads(json.dumps(found.to_json()))["seeds"] == [0, 1, 2]
    assert found.found.prompt.startswith("a ")


def test_a_report_has_all_that_brings_the_same_figures(small: Any) -> None:
    searched: dict[str, Any] = {"search": Inversion(steps=2, batch=1), "suite": Judge(), "seed": 5, "model": "tiny"}
    with edited(small) as editor:
        told = attack(small, "cat", **searched, guidance=2.0, **FAST).to_json()
        again = attack(
            small,
            told["concept"],
            search=search_of(told["attack"], told["settings"]),
            template=told["template"],
            suite=Judge(),
            seed=told["seed"],
            seeds=told["seeds"],
            model=told["model"]["name"],
            **{name: told["sampling"][name] for name in ("steps", "guidance", "batch_size")},
        )
        assert again.to_json() == told
        (entry,) = editor.entries
        editor.scale(entry.label, 0.5)
        other = attack(small, "cat", **searched, **FAST).to_json()
    assert (told["seed"], told["template"], told["threshold"]) == (5, "a {}", 0.5)
    assert told["examples"] == {"seeds": list(range(10_000, 10_016)), "used": 16}
    assert (told["sampling"]["guidance"], other["sampling"]["guidance"]) == (2.0, 3.0)
    assert {"efface", "torch", "diffusers", "transformers"} == set(told["sampling"]["libraries"])
    assert told["model"]["weights_sha256"] == weights_digest(small)
    assert (told["suite"]["name"], told["suite"]["digest"]) == ("judge", "1")
    assert [(one["sha256"], one["scale"]) for one in told["erasures"]] == [(entry.erasure.digest, 1.0)]
    assert other["erasures"][0]["scale"] == 0.5


def test_a_synonym_is_judged_as_its_concept(small: Any) -> None:
    asked: list[str] = []

    class Listening(Judge):
        def found(self, images: Sequence[Any], concept: str) -> Any:
            asked.append(concept)
            return super().found(images, concept)

    found = attack(small, "kitten", search=Inversion(steps=1), suite=Listening(), **FAST)
    assert set(asked) == {"cat"}
    assert found.concept == "kitten"


def test_where_nobody_judges_there_are_no_shares(small: Any) -> None:
    found: Attack = attack(small, "cat", search=Inversion(steps=1), **FAST)
    assert (found.base, found.erased, found.success, found.upper) == (None,) * 4


def test_what_the_base_does_not_show_cannot_be_brought_back(small: Any) -> None:
    class Blind(Judge):
        def found(self, images: Sequence[Any], concept: str) -> Any:
            return np.zeros(len(images))

    with pytest.raises(efface.EffaceError, match="shows 'cat' in none of 16 pictures"):
        attack(small, "cat", suite=Blind(), **FAST)


def test_what_there_is_not_is_refused_by_name(small: Any) -> None:
    with pytest.raises(efface.EffaceError, match=r"No attack 'invertion'; there are: .*Did you mean 'inversion'\?"):
        attack(small, "cat", search="invertion")
    with pytest.raises(efface.BadSetting, match="No setting 'word'; it has: "):
        search_of("inversion", {"word": 2})
    for template in (None, "a {}"):
        with pytest.raises(efface.EffaceError, match="No concept 'cow'; judge can tell: cat, dog"):
            attack(small, "cow", suite=Judge(), template=template, **FAST)


@pytest.fixture
def unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails where a picture is made."""

    def fail(*arguments: object, **options: object) -> None:
        raise AssertionError

    monkeypatch.setattr("efface.attack.attacking.generate", fail)


@pytest.mark.usefixtures("unasked")
@pytest.mark.parametrize("search", ["inversion", "substitution"])
def test_prompts_that_would_be_cut_off_are_refused_before_the_search(small: Any, search: str) -> None:
    """A tiny model reads 16 tokens, two of which begin and end; "a cat" has two, and a new word stands for "cat"."""
    most = 13 if search == "inversion" else 12
    search_of(search, {"words": most}).check(efface.Model(small), "cat", "a {}")
    with pytest.raises(efface.BadConcept, match=rf"16 tokens .*words \(setting 'words', now {most + 1}\) or a shorter"):
        attack(small, "cat", search=search_of(search, {"words": most + 1}), template="a {}", **FAST)
    with pytest.raises(efface.BadConcept, match=r"is longer than the 16 tokens of this model$"):
        attack(small, "cat", search=search, template="{}" + " bird" * 80, **FAST)


@pytest.mark.usefixtures("unasked")
@pytest.mark.parametrize("template", ["no place", "{} and {}", ""])
def test_a_template_has_one_place_for_the_concept(small: Any, template: str) -> None:
    with pytest.raises(efface.BadConcept, match=r"must hold \{\} exactly once"):
        attack(small, "cat", template=template, **FAST)


@pytest.mark.usefixtures("unasked")
def test_more_steps_than_the_model_has_are_refused(small: Any) -> None:
    with pytest.raises(efface.EffaceError, match="1001 steps are more"):
        attack(small, "cat", steps=1001)


@pytest.mark.parametrize("steps", [1, 5])
def test_a_search_that_diverges_is_an_error(small: Any, steps: int) -> None:
    """As soon as it does, be it after the last step."""
    with pytest.raises(efface.EffaceError, match=r"After 1 step .* smaller rate \(setting 'rate', now 1e\+38\)"):
        attack(small, "cat", search=Inversion(steps=steps, batch=1, rate=1e38), **FAST)


@pytest.mark.parametrize("search", [Inversion(steps=1, batch=1), Substitution(rounds=1, tries=1, batch=1)])
def test_a_model_of_no_finite_numbers_is_not_searched(small: Any, search: Any) -> None:
    latents = torch.full((2, 4, 8, 8), torch.nan)
    with pytest.raises(efface.EffaceError, match=r"cannot begin, for its first loss is (nan|inf): .* in float32"):
        search.search(Likeness(efface.Model(small), latents), "cat", "a {}", 0, silent)


def test_words_without_a_finite_loss_are_never_chosen(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, turns = Likeness.loss, iter(range(100))

    def sometimes(self: Likeness, prompt: Any, given: Any) -> Any:
        loss = plain(self, prompt, given)
        return loss * torch.nan if next(turns) == 2 else loss  # the first candidate of the first round

    likeness = Likeness(efface.Model(small), torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)))
    search = Substitution(rounds=6, tries=4, batch=2)
    monkeypatch.setattr(Likeness, "loss", sometimes)
    losses = search.search(likeness, "cat", "a {}", 0, silent).losses
    assert all(later <= earlier for earlier, later in itertools.pairwise(losses))
    assert losses[-1] < losses[0]


class TestWords:
    def test_each_is_one_token(self, small: Any) -> None:
        found = list(words(small))
        assert {"cat", "picture", "gogh"} <= {word.text for word in found}
        for word in found:
            assert small.tokenizer(word.text, add_special_tokens=False).input_ids == [word.token]

    def test_placeholders_are_the_rarest_and_no_part_of_the_prompt(self, small: Any) -> None:
        first, second = placeholders(small, 2, ())
        assert first.token > second.token
        assert placeholders(small, 1, (f"a {first.text.upper()}",)) == (second,)

    def test_too_many_are_refused(self, small: Any) -> None:
        with pytest.raises(efface.EffaceError, match="100000 were asked for"):
            placeholders(small, 100_000, ())

    def test_a_word_means_its_vector_inside_only(self, pipe: Any) -> None:
        model, (word,) = efface.Model(pipe), placeholders(pipe, 1, ())
        cat = pipe.tokenizer("cat", add_special_tokens=False).input_ids
        vectors = {name: table[cat] for name, table in embeddings(pipe).items()}
        with meaning(pipe, [word], vectors):
            inside = model.encode([f"a {word.text}"]).hidden
        assert torch.equal(inside, model.encode(["a cat"]).hidden)
        assert not torch.equal(model.encode([f"a {word.text}"]).hidden, inside)
