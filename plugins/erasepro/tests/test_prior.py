"""Random prompts that are kept: of the model's own words, none of them near the concept."""

from __future__ import annotations

import pytest
import torch

import efface
from efface_erasepro.prior import Draw, prior, vocabulary

CAT = efface.Request((efface.Concept("cat", anchor="dog"),))
NEVER = 1.1


def drawn(
    model: efface.Model, count: int = 9, near: float = NEVER, seed: int = 0, exclude: tuple[str, ...] = ()
) -> tuple[str, ...]:
    return prior(model, CAT, Draw(count, near, exclude), None, torch.Generator().manual_seed(seed))


def test_the_vocabulary_is_every_word_that_is_one_token(model: efface.Model) -> None:
    words = vocabulary(model)
    assert {"cat", "gogh", "painting"} <= set(words)
    assert all(len(word) > 1 for word in words)
    assert words == sorted(set(words))


def test_prompts_have_one_two_and_three_words_in_turns(model: efface.Model) -> None:
    prompts = drawn(model)
    assert [len(prompt.split()) for prompt in prompts] == [1, 2, 3] * 3
    assert {word for prompt in prompts for word in prompt.split()} <= set(vocabulary(model))


def test_every_word_is_drawn_once_before_any_is_drawn_twice(model: efface.Model) -> None:
    known = len(vocabulary(model))
    words = [word for prompt in drawn(model, known) for word in prompt.split()]
    assert len(set(words[:known])) == known
    assert len(words) == pytest.approx(2 * known, abs=2)


def test_the_same_seed_gives_the_same_prompts_and_another_seed_others(model: efface.Model) -> None:
    assert drawn(model) == drawn(model)
    assert drawn(model) != drawn(model, seed=1)


def test_no_prompt_holds_the_erased_word(model: efface.Model) -> None:
    assert any("cat" in prompt.split() for prompt in drawn(model, 30))
    assert not any("cat" in prompt.split() for prompt in drawn(model, 30, near=0.999))


def test_words_can_be_left_out(model: efface.Model) -> None:
    without = {word for prompt in drawn(model, 30, exclude=("Tree", "fish")) for word in prompt.split()}
    assert without == set(vocabulary(model)) - {"tree", "fish"}


def test_the_nearer_words_may_be_the_more_of_them_are_drawn(model: efface.Model) -> None:
    words = [{word for prompt in drawn(model, 30, near) for word in prompt.split()} for near in (0.0, 0.5, 0.999)]
    assert 0 < len(words[0]) < len(words[1]) < len(words[2])
    assert words[0] < words[1] < words[2]


def test_without_a_known_word_there_are_none(model: efface.Model) -> None:
    assert drawn(model, near=-1.0) == ()
    assert drawn(model, count=0) == ()
