"""Which embeddings are paired when a concept moves onto its anchor."""

import pytest
import torch

from efface.alignment import aligned, kept
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


def test_columns_know_their_prompt(model: Model) -> None:
    targets = model.encode_phrases(["cat", "dog"], ["{}", "a {}"])
    anchors = model.encode_phrases(["fish", "fish"], ["{}", "a {}"])

    pairs = aligned(targets, anchors, "tail")

    length = targets.hidden.shape[1]
    assert torch.bincount(pairs.prompts).tolist() == [length - 1, length - 2] * 2


def test_kept_prompts_give_their_last_word_or_all_their_tokens(model: Model) -> None:
    encoded = model.encode_phrases(["a red car", "the house"], ["{}"])

    assert torch.equal(kept(encoded, "subject"), torch.stack([encoded.hidden[0, 3], encoded.hidden[1, 2]], 1))
    assert torch.equal(kept(encoded, "tail")[:, 0], encoded.hidden[0, 0])
    assert kept(encoded, "tail").shape == (encoded.hidden.shape[2], 2 * encoded.hidden.shape[1])
