"""The vocabulary is what other packages are promised."""

import pytest

from efface_picturebook import world


def test_there_are_twelve_objects_eight_colours_six_backgrounds_and_four_styles() -> None:
    sizes = (len(world.THINGS), len(world.COLOURS), len(world.BACKGROUNDS), len(world.STYLES))
    assert sizes == (12, 8, 6, 4)


def test_every_object_has_four_synonyms_of_which_two_are_held_out() -> None:
    for thing in world.THINGS:
        assert len(thing.synonyms) + len(thing.held_out) >= 4, thing.name
        assert len(thing.held_out) == 2, thing.name


def test_no_held_out_word_is_requestable() -> None:
    requestable = {word for thing in world.THINGS for word in thing.requestable}
    held_out = {word for thing in world.THINGS for word in thing.held_out}
    assert not requestable & held_out


def test_no_word_names_two_objects() -> None:
    words = [word for thing in world.THINGS for word in thing.words]
    assert len(words) == len(set(words))


def test_tree_robot_and_flower_are_never_kept() -> None:
    assert {thing.name for thing in world.THINGS if not thing.kept} == {"tree", "robot", "flower"}


def test_a_character_can_be_described_by_its_parts() -> None:
    assert [who.description for who in world.CHARACTERS] == [
        "striped cat with a red hat",
        "spotted dog with a blue scarf",
    ]


def test_characters_and_natural_colours_use_the_words_of_the_world() -> None:
    for who in world.CHARACTERS:
        assert who.thing in world.DRESSED
        assert {who.colour, who.wears_colour} <= set(world.COLOURS)
    assert {colour for thing in world.THINGS for colour in thing.natural} <= set(world.COLOURS)


def test_an_unknown_object_is_refused_with_the_list_of_objects() -> None:
    with pytest.raises(KeyError, match=r"'dragon'.*cat, dog, fish"):
        world.thing("dragon")


def test_a_synonym_is_not_an_object() -> None:
    with pytest.raises(KeyError):
        world.thing("kitten")
