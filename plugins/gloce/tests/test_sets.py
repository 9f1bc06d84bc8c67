"""Sets of prompts in pieces of work: no prompt is in two, and the centres are in the first."""

from __future__ import annotations

import pytest

from efface_gloce.sets import Sets, distinct
from efface_gloce.words import Words


def concept(target: str, mapping: str, centre: str = "0") -> Words:
    """Each letter is a prompt."""
    return Words(tuple(target), tuple(mapping), (), tuple(centre))


def pieces(room: int, *concepts: Words) -> list[str]:
    """Of each piece its sets."""
    return [" ".join("".join(prompts) for prompts in piece) for piece in Sets.of(concepts).pieces(room)]


def test_every_set_is_there_once_with_what_is_wanted_of_it() -> None:
    found = Sets.of([concept("ab", "x"), concept("c", "x"), concept("x", "c", "1"), concept("ab", "y", "1")])
    assert found.centres == (("0",), ("1",))
    assert found.mappings == (("x",), ("c",), ("y",))
    assert found.targets == {("a", "b"): (("0",), ("1",)), ("c",): (("0",),), ("x",): (("1",),)}


@pytest.mark.parametrize(
    ("room", "wanted"),
    [
        (1, ["0", "x", "y", "ab", "c", "d"]),
        (2, ["0 x", "y", "ab", "c d"]),
        (3, ["0 x y", "ab c", "d"]),
        (7, ["0 x y ab c d"]),
    ],
)
def test_a_piece_has_as_many_sets_as_there_is_room_for(room: int, wanted: list[str]) -> None:
    assert pieces(room, concept("ab", "x"), concept("c", "x"), concept("d", "y")) == wanted


def test_what_hangs_together_by_prompts_is_one_piece() -> None:
    assert pieces(1, concept("ab", "x"), concept("c", "b"), concept("d", "c")) == ["0", "x", "b ab", "c", "d"]
    assert pieces(1, concept("ab", "x"), concept("bc", "y"), concept("cd", "z")) == ["0", "x", "y", "z", "ab bc cd"]
    assert pieces(2, concept("ab", "ca"), concept("d", "c")) == ["0", "ca c ab", "d"]
    assert pieces(2, concept("a", "b"), concept("b", "a")) == ["0 b", "a"]


def test_all_centres_are_in_the_first_piece_with_what_hangs_on_them() -> None:
    assert pieces(1, concept("a", "x", "0"), concept("b", "x", "1")) == ["0 1", "x", "a", "b"]
    assert pieces(1, concept("a0", "0", "0"), concept("b", "1", "1")) == ["0 a0 1", "b"]


def test_a_prompt_that_is_written_twice_counts_once() -> None:
    assert pieces(3, concept("aa", "x"), concept("b", "x")) == ["0 x aa", "b"]
    assert distinct([("a", "a"), ("b", "a")]) == ["a", "b"]
