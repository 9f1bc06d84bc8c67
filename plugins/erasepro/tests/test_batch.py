"""Which tokens of which prompts are targets, anchors, kept and still."""

from __future__ import annotations

from dataclasses import replace

import efface
from efface_erasepro.batch import Batch, Choice, batch

RED_CAR = efface.Request((efface.Concept("red car", anchor="dog"),), keep=("a red house",))
CHOICE = Choice("tail", pads=3, invariants=4, hold=(), averaged=False, prior_weight=0.5)
LENGTH = 16


def made(model: efface.Model, templates: tuple[str, ...] = ("a {} in style", "{}"), **choice: object) -> Batch:
    prior = tuple(choice.pop("prior", ()))  # type: ignore[arg-type]
    return batch(model, RED_CAR, templates, replace(CHOICE, **choice), prior)  # type: ignore[arg-type]


def cells(batch: Batch, which: str) -> list[tuple[str, int, float]]:
    """Prompt, position and weight of each token."""
    found = getattr(batch, which)
    each = zip(found.rows.tolist(), found.positions.tolist(), found.weights.tolist(), strict=True)
    return [(batch.prompts[row], position, weight) for row, position, weight in each]


def test_all_prompts_come_twice_first_for_the_edited_modules_and_then_for_the_base(model: efface.Model) -> None:
    found = made(model, ("a {}",), hold=("a bird",), prior=("tree fish",))
    assert found.prompts[: found.edited] == ("a red car", "a dog", "a red house", "tree fish", "a bird", "")
    assert found.prompts[found.edited :] == found.prompts[: found.edited]
    assert max(found.targets.rows) < found.edited <= min(found.anchors.rows)
    assert (found.base(found.kept).rows >= found.edited).all()


def test_a_phrase_its_suffix_the_end_and_some_padding_become_the_anchors(model: efface.Model) -> None:
    found = made(model, ("a {} in style",))
    assert [place for _, place, _ in cells(found, "targets")] == [2, 3, 4, 5, 6, 7, 11, 15]
    assert [place for _, place, _ in cells(found, "anchors")] == [2, 2, 3, 4, 5, 6, 10, 14]
    assert {prompt for prompt, _, _ in cells(found, "anchors")} == {"a dog in style"}
    assert found.labels[:5] == tuple(
        f"a red car in style [{part}]" for part in ("phrase 1", "phrase 2", "suffix 1", "suffix 2", "end")
    )
    assert found.labels[5].startswith("a red car in style [padding")


def test_the_padding_that_is_taken_weighs_as_much_as_all_of_it(model: efface.Model) -> None:
    weights = [weight for _, place, weight in cells(made(model, ("{}",)), "targets") if place > 3]
    assert weights == [12 / 3] * 3
    assert sum(weight for _, _, weight in cells(made(model, ("{}",), pads=99), "targets")) == LENGTH - 1


def test_span_and_subject_take_less(model: efface.Model) -> None:
    assert [place for _, place, _ in cells(made(model, ("a {}",), positions="span"), "targets")] == [2, 3]
    assert [place for _, place, _ in cells(made(model, ("a {}",), positions="subject"), "targets")] == [3]


def test_every_token_is_a_column_or_every_kind_of_token_is_one(model: efface.Model) -> None:
    tokens, averaged = made(model), made(model, averaged=True)
    assert tokens.columns.tolist() == list(range(len(tokens.targets)))
    assert tokens.column_labels == tokens.labels
    kinds = ("phrase 1", "phrase 2", "suffix", "end", "padding")
    assert averaged.column_labels == tuple(f"red car [{kind}]" for kind in kinds)
    assert averaged.columns.tolist() == [0, 1, 2, 2, 3, 4, 4, 4, 0, 1, 3, 4, 4, 4]


def test_anchors_and_kept_and_random_prompts_are_kept_from_their_first_word_on(model: efface.Model) -> None:
    found = cells(made(model, ("a {}",), prior=("tree",)), "kept")
    assert list(dict.fromkeys(prompt for prompt, _, _ in found)) == ["a dog", "a red house", "tree"]
    assert {place for prompt, place, _ in found if prompt == "a red house"} == {1, 2, 3, 4, 5, 10, 15}
    assert {place: weight for prompt, place, weight in found if prompt == "tree"}[1] == 0.5
    assert sum(weight for prompt, _, weight in found if prompt == "tree") == 0.5 * (LENGTH - 1)


def test_of_a_kept_prompts_padding_a_few_tokens_are_enough(model: efface.Model) -> None:
    found = made(model, ("{}",), pads=99)
    padding = [weight for prompt, place, weight in cells(found, "kept") if prompt == "a red house" and place > 4]
    assert padding == [11 / 8] * 8


def test_of_the_empty_prompt_the_start_and_some_padding_stay(model: efface.Model) -> None:
    assert [(prompt, place) for prompt, place, _ in cells(made(model), "still")] == [
        ("", 0),
        ("", 1),
        ("", 8),
        ("", 15),
    ]
    assert [place for _, place, _ in cells(made(model, invariants=1), "still")] == [0]
    assert cells(made(model, invariants=0), "still") == []


def test_held_prompts_stay_too(model: efface.Model) -> None:
    found = cells(made(model, hold=("a bird",), invariants=0), "still")
    assert {prompt for prompt, _, _ in found} == {"a bird"}
    assert found[0][1] == 1


def test_where_nothing_is_edited_on_the_way_every_prompt_comes_once(model: efface.Model) -> None:
    twice = made(model)
    once = twice.once
    assert once.prompts == twice.prompts[: twice.edited]
    assert cells(once, "anchors") == cells(twice, "anchors")
    assert once.base(once.kept).rows.equal(once.kept.rows)


def test_where_a_prompt_has_one_vector_it_is_one_column(model: efface.Model) -> None:
    pooled = made(model, averaged=True).pooled
    assert pooled.column_labels == ("a red car in style", "red car")
    assert [prompt for prompt, _, _ in cells(pooled, "anchors")] == ["a dog in style", "dog"]
    assert [prompt for prompt, _, _ in cells(pooled, "still")] == [""]
