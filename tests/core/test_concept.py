"""What can be asked to be erased, and what cannot."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from efface.concept import Concept, Request
from efface.errors import BadConcept, EffaceError


def test_a_concept_is_its_text_and_little_else() -> None:
    assert Concept("cat") == Concept("cat", anchor=None, synonyms=(), kind="object")


def test_spaces_around_and_inside_do_not_count() -> None:
    assert Concept("  van \n gogh ", anchor=" a  painting ") == Concept("van gogh", anchor="a painting")


def test_synonyms_may_come_in_any_sequence() -> None:
    assert Concept("cat", synonyms=["kitty", "tomcat"]).synonyms == ("kitty", "tomcat")  # type: ignore[arg-type]


def test_the_phrases_of_a_concept_are_its_text_and_synonyms() -> None:
    assert Concept("cat", synonyms=("kitty",)).phrases == ("cat", "kitty")


def test_an_empty_anchor_is_the_empty_prompt() -> None:
    assert Concept("cat", anchor=" ").anchor == ""


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"text": ""}, "A concept must not be empty"),
        ({"text": " \t"}, "A concept must not be empty"),
        ({"text": 3}, "A concept must be text, not 3"),
        ({"text": "cat\x00"}, "A concept holds a control character: 'cat\\x00'"),
        ({"text": "cat\x1b[31m"}, "A concept holds a control character"),
        ({"text": "cat\ud800"}, "A concept holds a lone surrogate"),
        ({"text": "cat", "anchor": "Cat "}, "Concept 'cat' has itself as anchor ('Cat')"),
        ({"text": "cat", "anchor": "kitty", "synonyms": ["Kitty"]}, "has itself as anchor ('kitty')"),
        ({"text": "cat", "anchor": 3}, "Concept 'cat': the anchor must be text, not 3"),
        ({"text": "cat", "synonyms": "kitty"}, "synonyms of concept 'cat' must be a sequence of texts, not 'kitty'"),
        ({"text": "cat", "synonyms": None}, "must be a sequence of texts, not None"),
        ({"text": "cat", "synonyms": ["kitty", ""]}, "Concept 'cat': a synonym must not be empty"),
        ({"text": "cat", "synonyms": ["CAT"]}, "Concept 'cat' lists 'CAT' twice"),
        ({"text": "cat", "kind": "animal"}, "has no kind 'animal'; kinds: object, style, person, explicit"),
    ],
)
def test_a_concept_that_says_nothing_or_contradicts_itself_is_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(BadConcept) as refused:
        Concept(**wrong)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_request_keeps_everything_as_tuples() -> None:
    request = Request([Concept("cat")], keep=["dog"], templates=["a photo of {}"])  # type: ignore[arg-type]
    assert request == Request((Concept("cat"),), ("dog",), ("a photo of {}",))


def test_what_is_kept_twice_is_kept_once() -> None:
    assert Request((Concept("cat"),), keep=("dog", "cow", "Dog", "")).keep == ("dog", "cow", "")


def test_a_request_fills_its_templates() -> None:
    request = Request((Concept("cat"),), templates=("{}", "a {braced} photo of {}"))
    assert request.prompts("a cat") == ("a cat", "a {braced} photo of a cat")


CAT = Concept("cat", synonyms=("kitty",))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"concepts": ()}, "A request needs at least one concept"),
        ({"concepts": CAT}, "concepts must be a sequence; put concept 'cat' in a tuple"),
        ({"concepts": "cat"}, "concepts must be a sequence of texts, not 'cat'"),
        ({"concepts": ["cat"]}, "concepts must hold Concept objects, not 'cat'"),
        ({"concepts": [CAT, Concept("Cat")]}, "The request erases 'Cat' twice"),
        ({"concepts": [CAT, Concept("kitty")]}, "The request erases 'kitty' twice"),
        ({"concepts": [CAT], "keep": ["dog", "CAT"]}, "The request erases 'CAT' and keeps it"),
        ({"concepts": [CAT], "keep": ["kitty"]}, "The request erases 'kitty' and keeps it"),
        ({"concepts": [CAT], "keep": "dog"}, "keep must be a sequence of texts, not 'dog'"),
        ({"concepts": [CAT], "templates": ()}, "A request needs at least one template"),
        ({"concepts": [CAT], "templates": ["photo"]}, "Template 'photo' must hold {} exactly once"),
        ({"concepts": [CAT], "templates": ["{} and {}"]}, "Template '{} and {}' must hold {} exactly once"),
    ],
)
def test_a_request_that_contradicts_itself_is_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(BadConcept) as refused:
        Request(**wrong)
    assert says in str(refused.value)


def test_an_anchor_may_be_kept() -> None:
    assert Request((Concept("cat", anchor="dog"),), keep=("dog",)).keep == ("dog",)


WORDS = st.text(st.characters(categories=["L", "N", "P", "Zs"]), min_size=1).filter(str.strip)


@given(text=WORDS, anchor=st.none() | WORDS, keep=st.lists(WORDS))
def test_json_gives_back_the_request_that_went_in(text: str, anchor: str | None, keep: list[str]) -> None:
    try:
        request = Request((Concept(text, anchor, kind="style"),), tuple(keep))
    except BadConcept:
        return
    assert Request.from_json(json.loads(json.dumps(request.to_json()))) == request


def test_json_may_leave_out_what_has_a_default() -> None:
    assert Request.from_json({"concepts": [{"text": "cat"}]}) == Request((Concept("cat"),))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (None, "A request in JSON is an object with concepts, keep, templates, not None"),
        ({}, "A request in JSON needs the field 'concepts'"),
        ({"concepts": ["cat"]}, "A concept in JSON is an object"),
        ({"concepts": [{}]}, "A concept in JSON needs the field 'text'"),
        ({"concepts": [{"text": "cat", "colour": "red"}]}, "A concept has no field 'colour'"),
        (
            {"concepts": [{"text": "cat"}], "seed": 1},
            "A request has no field 'seed'; it has: concepts, keep, templates",
        ),
        ({"concepts": [{"text": "cat", "kind": []}]}, "has no kind []"),
    ],
)
def test_json_of_another_form_is_refused(data: object, says: str) -> None:
    with pytest.raises(BadConcept) as refused:
        Request.from_json(data)
    assert says in str(refused.value)


def test_one_except_clause_catches_what_efface_and_its_hooks_raise() -> None:
    from efface_hooks.errors import HookError

    assert issubclass(BadConcept, EffaceError)
    assert issubclass(EffaceError, HookError)
