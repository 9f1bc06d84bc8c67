"""Erasures of one method become one, solved again or merged: which, for which request, and what the report says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch

import efface
from efface import BadConcept, BadSetting, Concept, EffaceError, Erasure, Fit, Fitted, PluginError, Registry, WrongBase
from efface.solver import Columns
from efface.solver.left import drift, left
from efface.testing.pipelines import tiny_pipeline


@dataclass(frozen=True)
class Sum:
    """Keeps one number for each concept and each kept prompt, so that what was composed of what can be read off."""

    name: ClassVar[str] = "sum"
    times: float = efface.setting(1.0, help="a factor")

    def fit(self, model: efface.Model, request: efface.Request, run: efface.Run) -> Fit:
        return self._fit({one.text: float(len(one.text)) for one in request.concepts}, request)

    def compose(self, fits: Sequence[Fitted], request: efface.Request) -> Fit:
        known = {name: value for fitted in fits for name, value in fitted.fit.facts["numbers"].items()}
        fit = self._fit({one.text: known[one.text] for one in request.concepts}, request)
        return replace(
            fit, report={"composition": {one: {"stacked": 1.0, "joint": 0.5} for one in fit.facts["numbers"]}}
        )

    def apply(self, patch: efface.Patch, fits: Sequence[Fitted]) -> None:
        (text,) = (point for point in patch.points if point.kind == "text")
        patch.map(text, efface.LowRank(torch.zeros(text.in_features, 1), torch.zeros(1, text.in_features)))

    def _fit(self, numbers: dict[str, float], request: efface.Request) -> Fit:
        return Fit({"number": torch.tensor(sum(numbers.values()) * self.times)}, {"numbers": numbers})


@dataclass(frozen=True)
class Silent(Sum):
    """Composes and does not say what came of it."""

    name: ClassVar[str] = "silent"

    def compose(self, fits: Sequence[Fitted], request: efface.Request) -> Fit:
        return Fit({})


@dataclass(frozen=True)
class Wrong(Sum):
    """Composes to something that is no fit."""

    name: ClassVar[str] = "wrong"

    def compose(self, fits: Sequence[Fitted], request: efface.Request) -> Fit:
        return None  # type: ignore[return-value]


@dataclass(frozen=True)
class Alone:
    """Cannot be composed."""

    name: ClassVar[str] = "alone"

    fit = Sum.fit
    apply = Sum.apply
    _fit = Sum._fit
    times: float = efface.setting(1.0, help="a factor")


@dataclass(frozen=True)
class Shelf:
    """Keeps its numbers apart, and merges them; it would not do so with another setting."""

    name: ClassVar[str] = "shelf"
    times: float = efface.setting(1.0, help="a factor")

    fit = Sum.fit
    apply = Sum.apply
    _fit = Sum._fit

    def merge(self, fits: Sequence[Fitted], request: efface.Request) -> Fit:
        if self.times == 0:
            raise EffaceError("nothing is kept apart with times=0")
        assert all(set(fitted.request.concepts) & set(request.concepts) for fitted in fits)
        known = {name: value for fitted in fits for name, value in fitted.fit.facts["numbers"].items()}
        return self._fit({one.text: known[one.text] for one in request.concepts}, request)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Shelf)

    def __hash__(self) -> int:
        return 0


@dataclass(frozen=True)
class Nothing(Shelf):
    """Merges to nothing."""

    name: ClassVar[str] = "nothing"

    def merge(self, fits: Sequence[Fitted], request: efface.Request) -> Fit:
        return None  # type: ignore[return-value]


@dataclass(frozen=True)
class Either(Sum):
    """Could do both."""

    name: ClassVar[str] = "either"

    def merge(self, fits: Sequence[Fitted], request: efface.Request) -> Fit:
        raise AssertionError("it composes")


class Plugin:
    @efface.hookimpl
    def efface_methods(self) -> list[type]:
        return [Sum, Silent, Wrong, Alone, Shelf, Nothing, Either]


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry([Plugin()])


@pytest.fixture
def fit(pipe: Any, registry: Registry) -> Any:
    def fit(
        *texts: str, method: str = "sum", anchor: str | None = "tree", keep: Sequence[str] = (), **options: Any
    ) -> Erasure:
        return efface.erase(pipe, list(texts), anchor=anchor, method=method, keep=keep, registry=registry, **options)

    return fit


@pytest.fixture
def compose(registry: Registry) -> Any:
    return lambda *erasures, **options: efface.compose(*erasures, registry=registry, **options)


def texts(erasure: Erasure) -> list[str]:
    return [concept.text for concept in erasure.concepts]


def test_all_concepts_are_solved_for_in_order(fit: Any, compose: Any) -> None:
    cat, both = fit("cat"), fit("dog", "red bird")
    joint = compose(cat, both)
    assert texts(joint) == ["cat", "dog", "red bird"]
    assert float(joint.tensors["number"]) == 3 + 3 + 8
    assert joint.header.facts == {"numbers": {"cat": 3.0, "dog": 3.0, "red bird": 8.0}}
    for field in ("method", "distribution", "version", "settings", "base", "points", "seed"):
        assert getattr(joint.header, field) == getattr(cat.header, field)


def test_the_header_is_that_of_a_fit_at_once(fit: Any, compose: Any) -> None:
    joint, at_once = compose(fit("cat"), fit("dog")), fit("cat", "dog")
    assert replace(joint.header, report={}) == replace(at_once.header, report={})


def test_one_more_can_be_added_and_taken_out_again(fit: Any, compose: Any) -> None:
    cat, dog, bird = fit("cat"), fit("dog"), fit("bird")
    three = compose(compose(cat, dog), bird)
    assert three == compose(cat, dog, bird)
    two = compose(three, remove=["Dog"])
    assert texts(two) == ["cat", "bird"]
    assert two.header.facts == compose(cat, bird).header.facts


def test_what_an_erasure_brought_can_be_taken_out_by_its_digest(fit: Any, compose: Any) -> None:
    cat, both = fit("cat"), fit("dog", "bird")
    joint = compose(cat, both, fit("fish"))
    for digest in (both.digest, both.digest[:8]):
        assert texts(compose(joint, remove=[digest])) == ["cat", "fish"]
    with pytest.raises(BadConcept, match=f"No concept '{both.digest[:7]}'; erased here: bird, cat, dog, fish"):
        compose(joint, remove=[both.digest[:7]])


def test_adding_and_removing_go_together(fit: Any, compose: Any) -> None:
    joint = compose(fit("cat"), fit("dog"))
    assert texts(compose(joint, fit("bird"), remove=["cat"])) == ["dog", "bird"]


def test_the_report_says_what_it_was_composed_of(fit: Any, compose: Any) -> None:
    cat, both, fish = fit("cat"), fit("dog", "bird"), fit("fish")
    joint = compose(compose(cat, both), fish)
    assert joint.header.report["composed"] == [
        {"sha256": cat.digest, "concepts": ["cat"]},
        {"sha256": both.digest, "concepts": ["dog", "bird"]},
        {"sha256": fish.digest, "concepts": ["fish"]},
    ]
    fewer = compose(joint, remove=["cat", "dog"])
    assert fewer.header.report["composed"] == [
        {"sha256": both.digest, "concepts": ["bird"]},
        {"sha256": fish.digest, "concepts": ["fish"]},
    ]
    assert fewer.header.report["composition"] == {name: {"stacked": 1.0, "joint": 0.5} for name in ("bird", "fish")}


def test_a_neutral_anchor_is_still_reported(fit: Any, compose: Any) -> None:
    joint = compose(fit("cat", anchor=None), fit("dog"))
    assert joint.header.report["neutral anchor"] == ["cat"]
    assert "neutral anchor" not in compose(joint, remove=["cat"]).header.report


# What is kept


def test_what_any_of_them_keeps_is_kept_once(fit: Any, compose: Any) -> None:
    joint = compose(fit("cat", keep=["a house", "a car"]), fit("dog", keep=["A House", "a fish"]))
    assert joint.request.keep == ("a house", "a car", "a fish")
    assert joint.header.report["no longer kept"] == []


def test_what_another_one_erases_is_kept_no_longer(fit: Any, compose: Any) -> None:
    joint = compose(fit("cat", keep=["Dog", "a car"]), fit("dog", keep=["a car", "cat"]))
    assert joint.request.keep == ("a car",)
    assert joint.header.report["no longer kept"] == ["Dog", "cat"]


def test_a_synonym_that_is_kept_elsewhere_is_kept_no_longer(
    pipe: Any, fit: Any, compose: Any, registry: Registry
) -> None:
    kitten = efface.erase(pipe, "cat", anchor="tree", synonyms=["kitten"], method="sum", registry=registry)
    assert compose(fit("dog", keep=["kitten"]), kitten).request.keep == ()


# What cannot be composed


def test_one_alone_is_nothing_to_compose(fit: Any, compose: Any) -> None:
    for erasures in ((), (fit("cat"),)):
        with pytest.raises(EffaceError, match="Give several erasures"):
            compose(*erasures)


def test_one_concept_is_erased_once(fit: Any, compose: Any) -> None:
    with pytest.raises(BadConcept, match="erases 'CAT' twice"):
        compose(fit("cat"), fit("CAT"))


def test_something_has_to_be_left(fit: Any, compose: Any) -> None:
    with pytest.raises(BadConcept, match="Nothing is left"):
        compose(fit("cat"), remove=["cat"])


def test_what_is_not_there_cannot_be_removed(fit: Any, compose: Any) -> None:
    with pytest.raises(BadConcept, match=r"No concept 'bid'; erased here: bird, cat\. Did you mean 'bird'"):
        compose(fit("cat", "bird"), remove=["bid"])


def test_a_method_that_cannot_is_answered_with_those_that_can(fit: Any, compose: Any) -> None:
    able = "either, nothing, shelf, silent, sum, wrong"
    with pytest.raises(
        EffaceError, match=rf"by alone, .* can be neither solved again nor merged; methods that can: {able}"
    ):
        compose(fit("cat", method="alone"), fit("dog", method="alone"))


def test_two_methods_are_not_one(fit: Any, compose: Any) -> None:
    with pytest.raises(EffaceError, match="Only erasures of one method"):
        compose(fit("cat"), fit("dog", method="silent"))


def test_other_settings_are_named(fit: Any, compose: Any) -> None:
    with pytest.raises(BadSetting, match=r"have other settings: times 1\.0 and 2\.0"):
        compose(fit("cat"), fit("dog", settings={"times": 2}))


def test_other_templates_are_refused(fit: Any, compose: Any) -> None:
    with pytest.raises(BadSetting, match="other templates"):
        compose(fit("cat"), fit("dog", templates=["a photo of {}"]))


@pytest.mark.parametrize("other", [{"seed": 1}, {"family": "sdxl"}])
def test_another_model_is_refused(other: Any, fit: Any, compose: Any, registry: Registry) -> None:
    pipe = tiny_pipeline(**({"family": "sd1"} | other))
    dog = efface.erase(pipe, "dog", anchor="tree", method="sum", registry=registry)
    with pytest.raises(WrongBase, match="were fitted on different models"):
        compose(fit("cat"), dog)


def test_a_cast_of_the_model_is_the_model(fit: Any, compose: Any, registry: Registry) -> None:
    half = tiny_pipeline("sd1", dtype=torch.float16)
    dog = efface.erase(half, "dog", anchor="tree", method="sum", registry=registry)
    assert texts(compose(fit("cat"), dog)) == ["cat", "dog"]


def test_other_points_are_another_model(fit: Any, compose: Any) -> None:
    dog = fit("dog")
    elsewhere = Erasure(replace(dog.header, points=("unet.mid",)), dog.tensors)
    with pytest.raises(WrongBase):
        compose(fit("cat"), elsewhere)


def test_a_method_that_breaks_the_contract_is_at_fault(fit: Any, compose: Any) -> None:
    with pytest.raises(PluginError, match=r"'wrong' must return an efface\.Fit from compose, not None"):
        compose(fit("cat", method="wrong"), fit("dog", method="wrong"))
    with pytest.raises(PluginError, match="'silent' must report the composition of every concept"):
        compose(fit("cat", method="silent"), fit("dog", method="silent"))


# Merged


def test_merged_concepts_are_all_there_in_order_as_they_were_fitted(fit: Any, compose: Any) -> None:
    cat, both = fit("cat", method="shelf"), fit("dog", "red bird", method="shelf")
    merged = compose(cat, both)
    assert texts(merged) == ["cat", "dog", "red bird"]
    assert merged.header.facts == {"numbers": {"cat": 3.0, "dog": 3.0, "red bird": 8.0}}
    assert "composition" not in merged.header.report
    for field in ("method", "distribution", "version", "settings", "base", "points", "seed"):
        assert getattr(merged.header, field) == getattr(cat.header, field)


def test_one_concept_of_a_file_can_be_taken_out(fit: Any, compose: Any) -> None:
    both = fit("dog", "red bird", method="shelf", keep=["a house"])
    left = compose(both, remove=["dog"])
    assert (texts(left), left.request.keep, left.header.facts) == (
        ["red bird"],
        ("a house",),
        {"numbers": {"red bird": 8.0}},
    )
    assert left.header.report["composed"] == [
        {"sha256": both.digest, "concepts": ["red bird"], "keep": ["a house"], "seed": 0}
    ]


def test_merged_and_taken_out_leaves_the_request_and_the_seed_of_what_is_left(fit: Any, compose: Any) -> None:
    cat = fit("cat", method="shelf", keep=["Dog", "a car"], seed=1)
    dog = fit("dog", method="shelf", keep=["a fish"], seed=2)
    merged = compose(cat, dog)
    assert (merged.request.keep, merged.header.report["no longer kept"]) == (("a car", "a fish"), ["Dog"])
    for gone, other in ((["cat"], dog), (["dog"], cat), ([cat.digest], dog)):
        again = compose(merged, remove=gone)
        assert (again.request, again.header.seed) == (other.request, other.header.seed)
        assert again.header.report["no longer kept"] == []
    assert compose(cat, dog, remove=["cat"]).request == dog.request


def test_what_could_be_merged_and_solved_is_solved(fit: Any, compose: Any) -> None:
    assert "composition" in compose(fit("cat", method="either"), fit("dog", method="either")).header.report


def test_other_settings_and_templates_are_not_merged_but_attached(fit: Any, compose: Any) -> None:
    cat, dog = fit("cat", method="shelf"), fit("dog", method="shelf", settings={"times": 2})
    with pytest.raises(BadSetting, match=r"other settings: times 1\.0 and 2\.0; attach both files instead"):
        compose(cat, dog)
    with pytest.raises(BadSetting, match="other templates; attach both files instead"):
        compose(cat, fit("dog", method="shelf", templates=["a photo of {}"]))


def test_one_phrase_is_not_merged_twice(fit: Any, compose: Any) -> None:
    with pytest.raises(BadConcept, match="erases 'CAT' twice"):
        compose(fit("cat", method="shelf"), fit("CAT", method="shelf"))


def test_a_method_says_itself_with_which_settings_it_cannot_merge(fit: Any, compose: Any) -> None:
    each = [fit(text, method="shelf", settings={"times": 0}) for text in ("cat", "dog")]
    with pytest.raises(EffaceError, match="nothing is kept apart with times=0"):
        compose(*each)


def test_merging_to_no_fit_is_the_methods_fault(fit: Any, compose: Any) -> None:
    with pytest.raises(PluginError, match=r"'nothing' must return an efface\.Fit from merge, not None"):
        compose(fit("cat", method="nothing"), fit("dog", method="nothing"))


# What is left, in numbers


def test_what_is_left_is_measured_for_each_owner_over_all_its_columns() -> None:
    inputs, change = torch.eye(4), torch.diag(torch.tensor([1.0, 1.0, 2.0, 3.0]))
    halves = [
        efface.Dense(torch.diag(torch.tensor([1.0, 0, 0, 1.5]))),
        efface.Dense(torch.diag(torch.tensor([0.0, 0, 2, 1.5]))),
    ]
    found = left(halves, [Columns(inputs, change)], torch.tensor([0, 0, 1, 2]))
    assert found == pytest.approx([0.5**0.5, 0.0, 0.0])
    parts = [Columns(inputs[:, :1], change[:, :1]), Columns(inputs[:, 1:], change[:, 1:])]
    assert left(halves[:1], parts, torch.tensor([0, 0, 1, 2])) == pytest.approx([0.5**0.5, 1.0, 0.5])


def test_what_asks_for_nothing_and_moves_nowhere_is_done() -> None:
    nothing = Columns(torch.eye(2), torch.zeros(2, 2))
    assert left([efface.Dense(torch.zeros(2, 2))], [nothing], torch.tensor([0, 0])) == [0.0]


def test_drift_is_the_share_by_which_the_sum_moves_inputs() -> None:
    twist = efface.Dense(torch.tensor([[0.0, 1.0], [0.0, 0.0]]))
    assert drift([twist], torch.eye(2)) == pytest.approx(0.5**0.5)
    assert drift([twist, twist], torch.eye(2, dtype=torch.float64)) == pytest.approx(2 * 0.5**0.5)


def test_concepts_keep_their_anchors_and_synonyms(pipe: Any, fit: Any, compose: Any, registry: Registry) -> None:
    cat = Concept("cat", anchor="dog", synonyms=("kitten",), kind="person")
    found = compose(efface.erase(pipe, cat, method="sum", registry=registry), fit("bird"))
    assert found.concepts == (cat, Concept("bird", anchor="tree"))
