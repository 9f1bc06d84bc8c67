"""What a fit starts from."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import efface
from efface.testing import tiny_pipeline
from efface_adavd.adavd import AdaVD
from efface_adavd.words import Words

PARTS = ("centre", "concept", "instead")
REQUEST = efface.Request((efface.Concept("red cat", anchor="dog", synonyms=("kitten",)),))


@pytest.fixture(scope="module")
def model() -> efface.Model:
    return efface.Model(tiny_pipeline("sd1"), efface.Registry())


def words(model: efface.Model, **options: Any) -> Words:
    return Words.of(model, REQUEST, **{"tokens": "tail", "relative": False, "anchored": True} | options)


def test_the_last_token_stands_for_a_phrase_or_all_that_follow_it_too(model: efface.Model) -> None:
    encoded = model.encode(["red cat", "kitten"])  # start, red, cat, end ...; start, kitten, end ...
    assert torch.equal(words(model, tokens="subject").concept, encoded.hidden[[0, 1], [2, 1]])
    assert torch.equal(words(model).concept, torch.cat([encoded.hidden[0, 2:], encoded.hidden[1, 1:]]))


def test_the_anchors_tokens_are_those_in_the_same_place(model: efface.Model) -> None:
    dog = model.encode(["dog"]).hidden[0]
    instead = words(model).instead
    assert instead is not None
    assert torch.equal(instead, torch.cat([dog[1:-1], dog[1:]]))  # "red cat" ends one place later than "dog"
    assert words(model, anchored=False).instead is None


def test_values_may_be_relative_to_the_empty_prompts(model: efface.Model) -> None:
    empty = model.encode([""]).hidden[0]
    plain, relative = words(model, tokens="subject"), words(model, tokens="subject", relative=True)
    assert torch.equal(plain.centre, torch.zeros_like(empty))
    assert torch.equal(relative.centre, empty)
    assert torch.equal(relative.concept, plain.concept - empty[[2, 1]])


def test_every_layer_has_values_of_its_own(model: efface.Model) -> None:
    fit = AdaVD().fit(model, REQUEST, efface.Run())
    points = model.points("cross_attn.v")
    assert sorted(fit.tensors) == sorted(f"{point.name}.{part}" for point in points for part in PARTS)
    found = words(model, relative=True)
    for point in points:
        values = found.values(model.weight(point))
        assert all(torch.equal(fit.tensors[f"{point.name}.{part}"], values[part]) for part in PARTS)
