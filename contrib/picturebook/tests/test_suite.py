"""The suite keeps its word: honest prompts in words of the world, for the models it can judge and no others."""

from types import SimpleNamespace
from typing import Any

import pytest
from transformers import CLIPTokenizer

import efface
import efface_picturebook
from efface.errors import BadConcept
from efface.suite import check_suite
from efface.testing import tiny_pipeline
from efface_picturebook import world
from efface_picturebook.suite import PicturebookSuite

SUITE = PicturebookSuite()
CONCEPTS = {one.text: one for one in SUITE.concepts()}
VOCABULARY = set(world.words())
HELD_OUT = {word for thing in world.THINGS for word in thing.held_out}
NEVER_KEPT = {word for thing in world.THINGS if not thing.kept for word in thing.words}


def example_prompts() -> list[str]:
    request = SUITE.example
    phrases = [*request.concepts[0].phrases, str(request.concepts[0].anchor)]
    return [*request.keep, *(prompt for phrase in phrases for prompt in request.prompts(phrase))]


def template_prompts(word: str, kind: efface.concept.Kind) -> list[str]:
    return [template.replace("{}", word) for template in SUITE.templates(kind)]


def published_prompts() -> list[str]:
    """Everything that stands in a request, a template or an unrelated prompt."""
    unrelated = [prompt for name in CONCEPTS for prompt in SUITE.unrelated(name)]
    empty = [prompt for kind in ("object", "style", "person") for prompt in template_prompts("", kind)]
    return [*example_prompts(), *unrelated, *empty]


def stand_in(**parts: Any) -> Any:
    return SimpleNamespace(pipe=SimpleNamespace(**parts))


def test_it_is_a_suite_and_the_plugin_offers_it() -> None:
    (offered,) = efface_picturebook.efface_suites()
    check_suite(offered)
    assert (offered.name, offered.guidance) == ("picturebook", 4.0)


def test_it_tells_twelve_objects_four_styles_and_two_persons() -> None:
    kinds = [one.kind for one in SUITE.concepts()]
    assert [kinds.count(kind) for kind in ("object", "style", "person")] == [12, 4, 2]
    assert [one.text for one in SUITE.concepts("style")] == list(world.STYLES)


def test_every_prompt_uses_words_of_the_world() -> None:
    asked = [
        prompt
        for one in SUITE.concepts()
        for word in (one.text, *one.synonyms, *one.held_out)
        for prompt in template_prompts(word, one.kind)
    ]
    scenes = [scene.prompt for name in CONCEPTS for scene in SUITE.scenes(name)]
    for prompt in [*asked, *scenes, *published_prompts()]:
        assert set(prompt.split()) <= VOCABULARY, prompt


def test_no_held_out_word_and_no_never_kept_object_is_published() -> None:
    for prompt in published_prompts():
        assert not set(prompt.split()) & (HELD_OUT | NEVER_KEPT), prompt


def test_no_held_out_word_is_a_synonym_or_in_a_scene() -> None:
    for one in SUITE.concepts():
        assert not set(one.synonyms) & set(one.held_out)
        assert not {word for scene in SUITE.scenes(one.text) for word in scene.prompt.split()} & HELD_OUT


def test_never_kept_objects_are_marked() -> None:
    assert {name for name, one in CONCEPTS.items() if not one.kept} == {"tree", "robot", "flower"}


def test_the_example_erases_cats_keeps_no_cat_and_names_every_colour_style_and_background() -> None:
    request = SUITE.example
    (concept,) = request.concepts
    assert (concept.text, concept.anchor, concept.synonyms) == ("cat", "fish", ())
    kept = {word for prompt in request.keep for word in prompt.split()}
    assert not kept & {*world.thing("cat").words, "pim"}
    assert {*world.COLOURS, *world.STYLES, *world.BACKGROUNDS} <= kept


@pytest.mark.parametrize("name", CONCEPTS)
def test_unrelated_prompts_avoid_the_concept_its_neighbours_and_what_it_shows(name: str) -> None:
    one = CONCEPTS[name]
    avoided = {name, *one.neighbours, *one.shows, *(other for other in CONCEPTS if name in CONCEPTS[other].shows)}
    words = {word for each in avoided for word in (each, *CONCEPTS[each].synonyms)}
    prompts = SUITE.unrelated(name)
    assert len(set(prompts)) == 12
    assert not {word for prompt in prompts for word in prompt.split()} & words


def test_unrelated_prompts_vary_in_object_colour_background_and_style() -> None:
    words = {word for prompt in SUITE.unrelated("car") for word in prompt.split()}
    assert len(words & {thing.name for thing in world.THINGS}) >= 6
    assert words & set(world.STYLES)
    assert words & set(world.BACKGROUNDS)
    assert len(words & set(world.COLOURS)) >= 3


@pytest.mark.parametrize("name", [one.text for one in SUITE.concepts("object")])
def test_scenes_show_the_concept_on_either_side_of_partners_that_look_different(name: str) -> None:
    scenes = SUITE.scenes(name)
    assert len(scenes) == len({scene.prompt for scene in scenes}) == 12
    for scene in scenes:
        assert {name, scene.other} <= set(scene.prompt.split())
        assert scene.other not in (name, *CONCEPTS[name].neighbours)
    first = [scene.prompt.split()[1] == name for scene in scenes]
    assert sum(first) == 6


def test_styles_and_persons_have_no_scenes() -> None:
    assert not any(SUITE.scenes(one.text) for kind in ("style", "person") for one in SUITE.concepts(kind))


def test_neighbours_are_concepts_and_mutual_within_a_kind() -> None:
    for one in SUITE.concepts():
        for near in one.neighbours:
            assert CONCEPTS[near].kind != one.kind or one.text in CONCEPTS[near].neighbours, (one.text, near)


def test_a_person_is_held_out_by_description_and_shows_an_animal() -> None:
    pim, dot = SUITE.concepts("person")
    assert pim.held_out == ("a striped cat with a red hat",)
    assert dot.shows == ("dog",)
    assert template_prompts(pim.held_out[0], "person")[1] == "a picture of a striped cat with a red hat"


def test_a_copy_of_the_pipeline_elsewhere_is_accepted() -> None:
    words = CLIPTokenizer.from_pretrained(efface_picturebook.weights() / "tokenizer", local_files_only=True)
    unet = SimpleNamespace(config=SimpleNamespace(sample_size=16))
    assert SUITE.accepts(stand_in(tokenizer=words, unet=unet, vae_scale_factor=4))
    assert not SUITE.accepts(stand_in(tokenizer=words, unet=unet, vae_scale_factor=8))


def test_other_pipelines_are_not_accepted() -> None:
    assert not SUITE.accepts(efface.Model(tiny_pipeline("sd1")))
    assert not SUITE.accepts(stand_in())


def test_an_unknown_concept_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(BadConcept, match=r"'dogg'.*mosaic.*Did you mean 'dog'"):
        SUITE.scenes("dogg")
    with pytest.raises(BadConcept):
        SUITE.found([], "kitten")


def test_the_folder_of_fitted_erasures_comes_with_the_model() -> None:
    (model,) = efface_picturebook.efface_models()
    assert model.erasures is not None
    assert (model.erasures() / "README.md").is_file()


def test_the_stack_has_known_concepts_and_none_becomes_what_another_one_takes() -> None:
    erased = [one.text for one in SUITE.stack]
    assert [CONCEPTS[one.text].kind for one in SUITE.stack] == [one.kind for one in SUITE.stack]
    assert {one.kind for one in SUITE.stack} == {"object", "style", "person"}
    anchors = {one.anchor for one in SUITE.stack if one.anchor}
    assert anchors <= set(CONCEPTS) - set(erased)
    assert len(set(erased)) == len(erased) == 5
