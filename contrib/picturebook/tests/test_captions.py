"""Captions say what is drawn, in words of the world."""

from random import Random

import pytest

from efface_picturebook import world
from efface_picturebook.captions import article, bare, caption, character
from efface_picturebook.scene import Figure, Scene, imagine

PIM = Figure("cat", "orange", (32, 32), 22, pattern="striped", wears=("hat", "red"))


def scenes(count: int = 1500) -> list[Scene]:
    return [imagine(Random(i)) for i in range(count)]


def captions_of(scene: Scene, count: int = 200) -> set[str]:
    return {caption(scene, Random(i)) for i in range(count)}


def test_every_word_of_every_caption_is_in_the_vocabulary() -> None:
    vocabulary = set(world.words())
    for i, scene in enumerate(scenes()):
        assert set(caption(scene, Random(i)).split()) <= vocabulary


def test_every_word_of_the_vocabulary_is_said() -> None:
    said = {word for i, scene in enumerate(scenes(4000)) for word in caption(scene, Random(i)).split()}
    assert said == set(world.words())


def test_the_same_seed_says_the_same() -> None:
    scene = imagine(Random(3))
    assert caption(scene, Random(5)) == caption(scene, Random(5))


def test_no_caption_names_an_object_that_is_not_there() -> None:
    for i, scene in enumerate(scenes()):
        words = set(caption(scene, Random(i)).split())
        shown = {figure.thing for figure in scene.figures}
        absent = {word for thing in world.THINGS if thing.name not in shown for word in thing.words}
        assert not words & absent


def test_only_colours_of_the_scene_are_named() -> None:
    for i, scene in enumerate(scenes()):
        seen = {figure.colour for figure in scene.figures} | {f.wears[1] for f in scene.figures if f.wears}
        assert set(caption(scene, Random(i)).split()) & set(world.COLOURS) <= seen


def test_a_style_is_named_whenever_there_is_one_unless_the_caption_says_nothing_at_all() -> None:
    for i, scene in enumerate(scenes()):
        said = caption(scene, Random(i))
        styles = set(said.split()) & set(world.STYLES)
        if scene.style == world.PLAIN:
            assert not styles
        elif said not in ("a picture", "picture", "an image", "a drawing"):
            assert styles == {scene.style}


def test_the_left_object_is_named_first() -> None:
    scene = Scene((Figure("boat", "red", (16, 32), 14), Figure("tree", "blue", (48, 32), 14)), "white", "plain")
    for said in captions_of(scene):
        words = said.split()
        if "red" in words and "blue" in words:
            assert words.index("red") < words.index("blue")


def test_a_character_is_named_or_described() -> None:
    said = captions_of(Scene((PIM,), "white", "plain"))
    assert "pim" in said
    assert any("cat with a red hat" in text for text in said)
    assert not any("pim" in text and "hat" in text for text in said)


def test_a_cat_that_lacks_a_part_is_no_character() -> None:
    assert character(PIM) is world.CHARACTERS[0]
    assert character(Figure("cat", "orange", (32, 32), 22, pattern="striped")) is None


def test_some_captions_name_only_the_style_and_some_nothing() -> None:
    said = captions_of(Scene((PIM,), "white", "neon"), 1000)
    assert {"neon", "neon style", "a neon picture", "a picture"} <= said


def test_synonyms_are_used_held_out_ones_too() -> None:
    words = " ".join(captions_of(Scene((Figure("dog", "red", (32, 32), 22),), "white", "plain"), 400)).split()
    assert set(world.thing("dog").words) <= set(words)


@pytest.mark.parametrize(("phrase", "expected"), [("orange cat", "an orange cat"), ("cat", "a cat")])
def test_articles_fit_the_word_they_precede(phrase: str, expected: str) -> None:
    assert article(phrase) == expected


def test_bare_captions_have_no_articles() -> None:
    assert bare("a picture of an orange cat") == "picture of orange cat"
