"""Which prompts a fit uses: given by hand, kept, or chosen from a list; nothing that is erased is among them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import efface
from efface.testing import tiny_pipeline
from efface_gloce.words import LISTS, Choice, Words, similarity, word_list, words_of


@pytest.fixture(scope="module")
def model() -> efface.Model:
    return efface.Model(tiny_pipeline("sd1"), efface.Registry())


def words(model: efface.Model, *concepts: efface.Concept, **options: Any) -> list[Words]:
    """The words of some concepts; `keep` and `templates` are of the request, the rest of the choice."""
    request = {name: tuple(options.pop(name)) for name in ("keep", "templates") if name in options}
    return words_of(model, efface.Request(concepts, **request), Choice(**options))


def boundary(model: efface.Model, *concepts: efface.Concept, **options: Any) -> tuple[str, ...]:
    return words(model, *concepts, **options)[0].boundary


CAT = efface.Concept("cat", anchor="fish")


def test_words_given_by_hand_are_taken_in_the_usual_template(model: efface.Model) -> None:
    (found,) = words(model, CAT, boundary=("dog", "bird"), centre="house")
    assert found.target == ("a picture of a cat",)
    assert found.mapping == ("a picture of a fish",)
    assert found.boundary == ("a picture of a dog", "a picture of a bird")
    assert found.centre == ("a picture of a house",)


@pytest.mark.parametrize(
    ("kind", "target", "centre"),
    [
        ("object", "a picture of a cat", "a picture of something"),
        ("person", "a picture of cat", "a picture of a person"),
        ("style", "a picture in cat style", "a photograph"),
        ("explicit", "cat", "a person"),
    ],
)
def test_the_usual_template_and_centre_go_with_the_kind(
    kind: Any, target: str, centre: str, model: efface.Model
) -> None:
    (found,) = words(model, efface.Concept("cat", anchor="fish", kind=kind), boundary=("dog",))
    assert found.target == (target,)
    assert found.centre == (centre,)


def test_an_article_is_not_said_twice(model: efface.Model) -> None:
    (found,) = words(model, efface.Concept("a cat", anchor="the red fish"), boundary=("an old dog", "a"))
    assert found.target == ("a picture of a cat",)
    assert found.mapping == ("a picture of a red fish",)
    assert found.boundary == ("a picture of a old dog", "a picture of a a")
    templates = ["{}", "the small {} there", "a face of {}"]
    (found,) = words(model, efface.Concept("a cat", anchor="fish"), templates=templates, boundary=("dog",))
    assert found.target == ("a cat", "the small cat there", "a face of a cat")


def test_templates_of_the_request_come_first_and_synonyms_are_targets_too(model: efface.Model) -> None:
    concept = efface.Concept("cat", anchor="fish", synonyms=("kitten",))
    (found,) = words(model, concept, templates=["a {}", "red {}"], template="blue {}", boundary=("a dog",))
    assert found.target == ("a cat", "red cat", "a kitten", "red kitten")
    assert found.mapping == ("a fish", "red fish")
    assert found.boundary == ("a dog", "red a dog")
    (found,) = words(model, concept, template="blue {}", boundary=("a dog",))
    assert found.target == ("blue cat", "blue kitten")
    assert found.boundary == ("blue a dog",)


def test_without_words_by_hand_the_most_similar_ones_are_chosen(model: efface.Model) -> None:
    pool = ("dog", "bird", "car", "house", "tree")
    near = similarity(model, "a picture of a cat", [f"a picture of a {word}" for word in pool])
    ranked = [f"a picture of a {pool[index]}" for index in near.argsort(descending=True).tolist()]
    assert boundary(model, CAT, pool=pool, boundaries=2) == tuple(ranked[:2])
    far = words(model, efface.Concept("cat", anchor=""), pool=pool, mappings=2, boundaries=1)[0].mapping
    assert far == tuple(reversed(ranked[-2:]))


def test_similarity_is_the_mean_cosine_of_tokens_one_to_eight(model: efface.Model) -> None:
    one, other = model.encode(["cat"]).hidden[0], model.encode(["a red dog"]).hidden[0]
    cosines = [float(torch.cosine_similarity(one[i], other[i], dim=0)) for i in range(1, 9)]
    assert similarity(model, "cat", ["cat", "a red dog"]).tolist() == pytest.approx([1.0, sum(cosines) / 8])


def test_what_is_kept_stays_as_it_is_whatever_else_the_boundary_is(model: efface.Model) -> None:
    keep = ["a dog", "red car", "The dog", "a red cat"]
    (found,) = words(model, CAT, keep=keep, pool=("bird", "house"), boundaries=3)
    assert found.kept == ("a dog", "red car")
    assert found.dropped == ("a red cat",)
    (found,) = words(model, CAT, keep=keep, boundaries=0)
    assert (found.kept, found.boundary) == (("a dog", "red car"), ())
    assert words(model, CAT, keep=keep, boundary=("bird",))[0].kept == ("a dog", "red car")


def test_words_are_chosen_only_until_there_are_enough_with_what_is_kept(model: efface.Model) -> None:
    pool, keep = ("bird", "house", "tree"), ("a dog", "a red cat", "a car")

    def chosen(boundaries: int) -> int:
        return len(boundary(model, CAT, keep=keep, pool=pool, boundaries=boundaries))

    assert [chosen(count) for count in (0, 2, 3, 4, 9)] == [0, 0, 1, 2, 3]


def test_nothing_that_is_erased_is_next_to_it(model: efface.Model) -> None:
    pool = ("Red Cat", "dog", "kitten", "bird", "DOG", "tree")
    concepts = (efface.Concept("cat", anchor="fish", synonyms=("kitten",)), efface.Concept("bird", anchor="fish"))
    found = words(model, *concepts, pool=pool, erased=("tree",), boundaries=9)
    assert [one.boundary for one in found] == [("a picture of a dog",)] * 2
    assert found[0].dropped == ("Red Cat", "kitten", "bird", "tree")
    by_hand = words(model, CAT, boundary=("cat", "dog"))[0]
    assert by_hand.boundary == ("a picture of a dog",)
    assert by_hand.dropped == ("cat",)


def test_what_is_kept_may_contain_the_letters_of_a_name_and_not_the_name(model: efface.Model) -> None:
    car = efface.Concept("car", anchor="fish")
    keep = ["a carpet", "a cartoon of a dog", "two cars", "the Car's door", "a car."]
    (found,) = words(model, car, keep=keep, boundary=("scar", "cars"))
    assert found.kept == ("a carpet", "a cartoon of a dog")
    assert found.boundary == ("a picture of a scar",)
    assert found.dropped == ("two cars", "the Car's door", "a car.", "cars")


def test_a_concept_does_not_become_what_is_erased(model: efface.Model) -> None:
    cat = efface.Concept("cat", anchor="")
    (found,) = words(model, cat, mapping=("a cat", "house"), boundary=("dog",))
    assert (found.mapping, found.dropped) == (("a picture of a house",), ("a cat",))
    with pytest.raises(efface.BadConcept, match="Concept 'cat': it cannot become 'a cat', which is erased"):
        words(model, cat, mapping=("a cat",), boundary=("dog",))


def test_with_no_words_left_it_says_what_to_give(model: efface.Model) -> None:
    with pytest.raises(efface.BadConcept, match="Concept 'cat': no words are left that are next to it and stay"):
        words(model, CAT, pool=("cat", "wildcat"))


def test_what_a_concept_becomes_is_its_anchor_else_words_by_hand_else_the_neutral_prompt(model: efface.Model) -> None:
    def mapping(anchor: str, **options: Any) -> tuple[str, ...]:
        return words(model, efface.Concept("cat", anchor=anchor), boundary=("dog",), **options)[0].mapping

    assert mapping("fish", mapping=("car",), mappings=2) == ("a picture of a fish",)
    assert mapping("", mapping=("car", "house")) == ("a picture of a car", "a picture of a house")
    assert mapping("") == ("",)


def test_the_models_own_neutral_prompt_is_the_centre_and_no_anchor(
    model: efface.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(efface.Model, "neutral", "a picture")
    (found,) = words(model, efface.Concept("cat", anchor="a picture"), boundary=("dog",))
    assert found.centre == found.mapping == ("a picture",)
    (found,) = words(model, efface.Concept("cat", anchor="a picture"), boundary=("dog",), mapping=("car",))
    assert found.mapping == ("a picture of a car",)


@pytest.mark.parametrize("name", LISTS)
def test_the_lists_hold_each_word_once(name: str) -> None:
    found = word_list(name)
    assert len(found) >= 30
    assert len({word.casefold() for word in found}) == len(found)


def test_of_a_list_only_words_that_the_tokenizer_knows_are_taken(model: efface.Model) -> None:
    chosen = boundary(model, efface.Concept("fish", anchor="van"), boundaries=1000)
    assert set(chosen) == {f"a picture of a {word}" for word in ("cat", "dog", "bird", "car", "house")}
    assert boundary(model, CAT, pool=("objects", "xyz"), boundaries=1000)[-1:] != ()
    assert "a picture of a xyz" in boundary(model, CAT, pool=("objects", "xyz"), boundaries=1000)
