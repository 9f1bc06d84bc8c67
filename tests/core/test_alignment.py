"""Which embeddings are paired when a concept moves onto its anchor."""

import pytest
import torch

from efface.alignment import aligned, kept, places
from efface.model import Model
from efface.registry import Registry
from efface.testing import tiny_pipeline


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(tiny_pipeline("sd1"), Registry())


def test_subject_pairs_the_last_token_of_each_phrase(model: Model) -> None:
    targets = model.encode_phrases(["red house"], ["a photo of {} by the house"])
    anchors = model.encode_phrases(["cat"], ["a photo of {} by the house"])

    pairs = aligned(targets, anchors, "subject")

    assert torch.equal(pairs.targets, targets.hidden[0, 5:6].T)
    assert torch.equal(pairs.anchors, anchors.hidden[0, 4:5].T)


def test_tail_goes_on_from_there_to_the_end_of_the_sequence(model: Model) -> None:
    targets = model.encode_phrases(["red house"], ["a photo of {}"])
    anchors = model.encode_phrases(["cat"], ["a photo of {}"])

    pairs = aligned(targets, anchors, "tail")

    assert torch.equal(pairs.targets, targets.hidden[0, 5:].T)
    assert torch.equal(pairs.anchors, anchors.hidden[0, 4:-1].T)
    assert targets.ids[0, 6] == anchors.ids[0, 5] == model.pipe.tokenizer.eos_token_id


def test_an_empty_anchor_is_its_end_of_text_token(model: Model) -> None:
    targets = model.encode_phrases(["cat"], ["{}"])
    anchors = model.encode_phrases([""], ["{}"])

    pairs = aligned(targets, anchors, "subject")

    assert torch.equal(pairs.anchors, anchors.hidden[0, 1:2].T)


def test_what_follows_an_empty_anchor_is_paired_one_to_one(model: Model) -> None:
    targets = model.encode_phrases(["red cat"], ["a {} in the house"])
    anchors = model.encode_phrases([""], ["a {} in the house"])

    pairs = aligned(targets, anchors, "tail")

    assert torch.equal(pairs.anchors[:, 0], anchors.hidden[0, 5])
    assert torch.equal(pairs.anchors[:, 1:], anchors.hidden[0, 2:-2].T)
    assert torch.equal(pairs.targets, targets.hidden[0, 3:].T)
    assert targets.ids[0, 4] == anchors.ids[0, 2] != model.pipe.tokenizer.eos_token_id


def span(model: Model, target: str, anchor: str) -> tuple[list[int], list[int]]:
    """The paired positions of two phrases in the template "the {} by the car"."""
    targets, anchors = (model.encode_phrases([phrase], ["the {} by the car"]) for phrase in (target, anchor))
    found = places(targets, anchors, "span")
    assert found.prompts.tolist() == [0] * len(found.targets)
    return found.targets.tolist(), found.anchors.tolist()


def test_span_pairs_the_phrases_from_their_last_tokens_back(model: Model) -> None:
    assert span(model, "red car", "blue house") == ([2, 3], [2, 3])
    assert span(model, "cat", "dog") == ([2], [2])


def test_span_leaves_out_the_leading_tokens_of_a_longer_anchor(model: Model) -> None:
    assert span(model, "red car", "a blue house") == ([2, 3], [3, 4])


def test_span_repeats_the_first_token_of_a_shorter_anchor(model: Model) -> None:
    assert span(model, "a red car", "house") == ([2, 3, 4], [2, 2, 2])
    assert span(model, "a red car", "blue house") == ([2, 3, 4], [2, 2, 3])


def test_span_takes_an_empty_anchor_as_its_end_of_text_token(model: Model) -> None:
    assert span(model, "red car", "") == ([2, 3], [5, 5])


def test_places_are_where_the_columns_come_from(model: Model) -> None:
    targets = model.encode_phrases(["red house", "cat"], ["a photo of {}", "{} in the style"])
    anchors = model.encode_phrases(["fish", "van gogh"], ["a photo of {}", "{} in the style"])

    for tokens in ("subject", "span", "tail"):
        found, pairs = places(targets, anchors, tokens), aligned(targets, anchors, tokens)
        assert torch.equal(pairs.prompts, found.prompts)
        assert torch.equal(pairs.targets, targets.hidden[found.prompts, found.targets].T)
        assert torch.equal(pairs.anchors, anchors.hidden[found.prompts, found.anchors].T)


def test_columns_know_their_prompt(model: Model) -> None:
    targets = model.encode_phrases(["cat", "dog"], ["{}", "a {}"])
    anchors = model.encode_phrases(["fish", "fish"], ["{}", "a {}"])

    pairs = aligned(targets, anchors, "tail")

    length = targets.hidden.shape[1]
    assert torch.bincount(pairs.prompts).tolist() == [length - 1, length - 2] * 2


def test_kept_prompts_give_their_last_word_their_phrase_or_all_their_tokens(model: Model) -> None:
    encoded = model.encode_phrases(["a red car", "the house"], ["{}"])

    assert torch.equal(kept(encoded, "subject"), torch.stack([encoded.hidden[0, 3], encoded.hidden[1, 2]], 1))
    assert torch.equal(kept(encoded, "span"), torch.cat([encoded.hidden[0, 1:4], encoded.hidden[1, 1:3]]).T)
    assert torch.equal(kept(encoded, "tail")[:, 0], encoded.hidden[0, 0])
    assert kept(encoded, "tail").shape == (encoded.hidden.shape[2], 2 * encoded.hidden.shape[1])
