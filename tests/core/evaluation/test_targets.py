"""What is measured of an erased concept follows from the suite and from what the requests say."""

from __future__ import annotations

from typing import Any

import pytest

from efface import BadConcept, Concept, Request
from efface.evaluation.targets import Target, Targets, says


def targets(suite: Any, *concepts: Concept, keep: tuple[str, ...] = (), seeds: int = 10) -> tuple[Target, ...]:
    requests = tuple(Request((concept,), keep) for concept in concepts)
    return Targets(suite, requests, "a picture", tuple(range(seeds)), batch_size=5).all()


def target(suite: Any, *concepts: Concept, **options: Any) -> Target:
    return targets(suite, *concepts, **options)[0]


def prompts(draws: Any) -> list[str]:
    return list(dict.fromkeys(draw.prompt for draw in draws))


def pictures(draws: Any) -> int:
    return sum(len(draw.seeds) for draw in draws)


def test_the_concept_and_its_held_out_words_go_into_the_templates(suite: Any) -> None:
    found = target(suite, Concept("cat", "dog"), seeds=20)
    assert prompts(found.own) == ["a cat", "a red cat"]
    assert prompts(found.held_out) == ["a kitten", "a tabby", "a red kitten", "a red tabby"]


@pytest.mark.parametrize(("seeds", "few"), [(50, 10), (10, 2), (1, 1)])
def test_there_are_as_many_pictures_as_seeds_and_a_fifth_of_each_other_concept(
    suite: Any, seeds: int, few: int
) -> None:
    found = target(suite, Concept("cat", "dog"), seeds=seeds)
    scenes = [draw for _, draws in found.scenes for draw in draws]
    for draws in (found.own, found.held_out, scenes, found.unrelated, found.anchors, found.more_anchors):
        assert pictures(draws) == seeds
    assert {pictures(draws) for draws in found.others.values()} == {few}
    assert pictures(found.compared) == 4 * seeds + 3 * few


def test_a_synonym_and_another_spelling_are_the_concept(suite: Any) -> None:
    assert target(suite, Concept("Puss")).concept.text == "cat"


def test_a_concept_that_two_erasures_erase_is_one_target(suite: Any) -> None:
    (found,) = targets(suite, Concept("cat", "dog"), Concept("puss", "bird"))
    assert found.anchor is not None
    assert found.anchor.text == "dog"


def test_a_suite_may_measure_some_of_what_is_erased_and_the_rest_is_no_other_concept(suite: Any) -> None:
    suite.measured = lambda erased: [one for one in erased if one == "dog"]
    (found,) = targets(suite, Concept("cat"), Concept("dog"))
    assert (found.concept.text, list(found.others)) == ("dog", ["bird", "cubism"])


def test_an_unknown_concept_is_refused_with_what_there_is(suite: Any) -> None:
    with pytest.raises(BadConcept, match="No concept 'kitten'; words can tell: bird, cat, cubism, dog, tom"):
        targets(suite, Concept("dog"), Concept("kitten"))


def test_what_shows_an_erased_concept_need_not_stay(suite: Any) -> None:
    assert list(target(suite, Concept("cat")).others) == ["dog", "bird", "cubism"]
    assert list(target(suite, Concept("tom")).others) == ["cat", "dog", "bird", "cubism"]
    assert [list(one.others) for one in targets(suite, Concept("dog"), Concept("cat"))] == [["bird", "cubism"]] * 2


def test_only_what_no_keep_list_names_was_never_kept(suite: Any) -> None:
    assert target(suite, Concept("cat"), keep=("a dog",)).never_kept == ("bird",)
    assert target(suite, Concept("cat"), keep=("a  red Bird",)).never_kept == ()


def test_held_out_words_that_a_request_erases_are_not_held_out(suite: Any) -> None:
    assert prompts(target(suite, Concept("cat", synonyms=("Tabby",))).held_out) == ["a kitten", "a red kitten"]


def test_scenes_and_unrelated_prompts_keep_clear_of_everything_erased(suite: Any) -> None:
    cat, dog = targets(suite, Concept("cat"), Concept("dog"))
    assert [scene.prompt for scene, _ in cat.scenes] == ["a cat and a bird"]
    assert prompts(cat.unrelated) == prompts(dog.unrelated) == ["a tree", "a car"]
    assert prompts(target(suite, Concept("cat")).unrelated) == ["a dog house", "a tree"]


def test_every_scene_has_its_own_pictures(suite: Any) -> None:
    found = target(suite, Concept("cat"))
    assert [(scene.other, prompts(draws), pictures(draws)) for scene, draws in found.scenes] == [
        ("dog", ["a cat and a dog"], 5),
        ("bird", ["a cat and a bird"], 5),
    ]


@pytest.mark.parametrize(
    ("anchor", "wanted", "told"),
    [
        ("dog", ["a dog", "a red dog"], "dog"),
        ("lion", ["a lion", "a red lion"], None),
        ("cubism", ["a house in cubism style"], None),
        (None, ["a picture"], None),
        ("A picture", ["A picture"], None),
        ("", [""], None),
    ],
)
def test_the_anchor_is_drawn_as_what_it_is(suite: Any, anchor: str | None, wanted: list[str], told: str | None) -> None:
    found = target(suite, Concept("cat", anchor))
    assert prompts(found.anchors) == prompts(found.more_anchors) == wanted
    assert (found.anchor.text if found.anchor else None) == told


def test_base_pictures_of_the_anchor_come_from_two_sets_of_seeds(suite: Any) -> None:
    found = target(suite, Concept("cat", "dog"))
    one, other = ([seed for draw in draws for seed in draw.seeds] for draws in (found.anchors, found.more_anchors))
    assert (one, other) == (list(range(10)), list(range(10, 20)))


def test_words_are_found_as_words() -> None:
    assert says("A red  CAT", "cat")
    assert not says("a catfish", "cat")
