"""The bank of phrases, how they rank, and what is drawn from them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

import efface
from efface.testing import FAMILIES, tiny_pipeline
from efface_realera import bank
from efface_realera.bounds import Bounds
from efface_realera.mining import Mined, mine, text_blocks
from efface_realera.prompts import Prompts
from efface_realera.ranking import Eye, ranked, shortlist
from efface_realera.realera import RealEra

PHRASES = ("kitten", "bird", "fish", "house", "tree")


def request(*keep: str, templates: tuple[str, ...] = ("{}",)) -> efface.Request:
    return efface.Request((efface.Concept("cat", "dog", ("black cat",)), efface.Concept("car", "van")), keep, templates)


def mined(pipe: Any, wanted: efface.Request, **settings: Any) -> tuple[Mined, Prompts]:
    model = efface.Model(pipe)
    prompts = Prompts.of(model, wanted)
    return mine(RealEra(**({"bank": PHRASES} | settings)), model, wanted, prompts, efface.Run()), prompts


@pytest.fixture(scope="module")
def pipe() -> Any:
    return tiny_pipeline("sd1")


def test_the_bank_is_the_tokenizers_whole_words(pipe: Any) -> None:
    words = bank.whole_words(pipe.tokenizer)
    assert {"photo", "kitten", "gogh"} <= set(words)
    assert not {"a", "of", "x", "kitt"} & set(words)
    assert bank.phrases(pipe.tokenizer, request(), (), (), 3) == words[:3]


def test_what_is_erased_kept_excluded_or_an_anchor_is_in_no_bank(pipe: Any) -> None:
    given = ["a black cat", "Cat", "cats", "red", "bird", "house", "red house", "dog", "wagon"]
    found = bank.phrases(pipe.tokenizer, request("a red bird"), given, ("House",), 99)
    assert found == ["cats", "wagon"]


def test_ranks_are_cut_at_the_window_and_by_number() -> None:
    bounds = Bounds.of("snap", lowest=0.7, below=0.5, floor=0.0)
    cosines = torch.tensor([0.1, 0.9, 0.6, 0.71, 0.4, -0.2, 0.3])
    found = ranked("abcdefg", cosines, bounds, near=5, beyond=2)
    assert [phrase for phrase, _ in found.near] == ["b", "d"]
    assert [phrase for phrase, _ in found.beyond] == ["e", "g"]
    assert [phrase for phrase, _ in ranked("abcdefg", cosines, bounds, near=0, beyond=9).beyond] == ["e", "g", "a"]
    assert ranked("abcdefg", cosines, bounds, near=1, beyond=0).near == (("b", 0.9),)


def test_phrases_are_alike_when_they_pull_noise_the_same_way(pipe: Any) -> None:
    model = efface.Model(pipe)
    eye = Eye.of(model, torch.Generator().manual_seed(0), batch_size=2)
    concept, others = model.encode(["cat", "kitten"]), model.encode(["bird", "cat", "tree"])
    found = eye.likeness(concept, others)
    assert float(found[1]) == pytest.approx(1, abs=1e-5)
    assert float(found.max()) < 1 + 1e-5
    assert float(found[0]) < 0.99

    def way(prompt: str, x: Tensor) -> Tensor:
        neutral, x = model.encode([model.neutral]), x[None]
        return model.predict(x, eye.timestep, model.encode([prompt])) - model.predict(x, eye.timestep, neutral)

    with torch.no_grad():
        by_hand = [
            sum(cosine_similarity(way("bird", x).flatten(), way(own, x).flatten(), dim=0) for x in eye.latents) / 2
            for own in ("cat", "kitten")
        ]
    assert float(found[0]) == pytest.approx(max(float(each) for each in by_hand), abs=1e-5)


def test_they_are_compared_where_the_neutral_prompt_leads(pipe: Any) -> None:
    model = efface.Model(pipe)
    eye = Eye.of(model, torch.Generator().manual_seed(0), batch_size=2)
    seeds = torch.randint(2**31, (2,), generator=torch.Generator().manual_seed(0)).tolist()
    led = model.denoise(model.encode([model.neutral] * 2), model.noise(seeds), guidance=1.0, until=800)
    assert int(eye.timestep) == 800
    torch.testing.assert_close(eye.latents, led)


def test_of_a_long_bank_only_what_is_alike_as_text_is_compared(pipe: Any) -> None:
    model = efface.Model(pipe)
    concept, encoded = (model.encode_phrases(words, ["a {}"]) for words in (["cat"], ["tree", "cat", "bird", "fish"]))
    blocks = (slice(0, encoded.hidden.shape[2]),)
    assert shortlist(concept, encoded, "tail", blocks, 4) == [0, 1, 2, 3]
    assert shortlist(concept, encoded, "tail", blocks, 1) == [1]
    found, _ = mined(pipe, efface.Request((efface.Concept("cat", "dog"),)), shortlist=2, s_lo=-0.99, s_beyond=-0.99)
    assert len(found.ranks[0].near) == 2
    assert found.others is not None
    assert len(found.others.prompts) == len(PHRASES) - 2


def test_a_phrase_that_is_near_one_concept_is_beyond_none(pipe: Any) -> None:
    found, _ = mined(pipe, request(), s_lo=0.7, s_beyond=0.7)
    near = {phrase for rank in found.ranks for phrase, _ in rank.near}
    beyond = {phrase for rank in found.ranks for phrase, _ in rank.beyond}
    assert near
    assert beyond
    assert not near & beyond
    assert found.others is not None
    assert set(found.others.prompts) == set(PHRASES) - near


def test_phrases_are_drawn_without_repetition_in_the_template_of_the_row(pipe: Any) -> None:
    found, prompts = mined(pipe, request(templates=("{}", "a {} in the house")), s_lo=-0.9, s_beyond=-0.9)
    row = prompts.rows(0, template=1)[0]
    drawn = found.miner.near(row, 3, torch.Generator().manual_seed(0))
    assert len(set(drawn.prompts)) == 3
    assert all(prompt.endswith("in the house") for prompt in drawn.prompts)
    again = found.miner.near(row, 3, torch.Generator().manual_seed(0))
    assert torch.equal(drawn.hidden, again.hidden)
    assert len(found.miner.near(row, 99, torch.Generator()).prompts) == len(found.ranks[0].near)


def test_neighbours_and_beyond_concept_points_are_drawn_from_their_own_ranks(pipe: Any) -> None:
    found, prompts = mined(pipe, request(), s_lo=0.7, s_beyond=0.7)
    (first, *_), (second, *_) = prompts.rows(0), prompts.rows(1)
    near = found.miner.near(second, 99, torch.Generator()).prompts
    beyond = found.miner.beyond(first, 99, torch.Generator()).prompts
    assert sorted(near) == sorted(phrase for phrase, _ in found.ranks[1].near) != []
    assert sorted(beyond) == sorted(phrase for phrase, _ in found.ranks[0].beyond) != []


def test_where_nothing_is_near_nothing_is_drawn(pipe: Any) -> None:
    found, _ = mined(pipe, request(), s_lo=0.9999)
    assert found.ranks[0].near == ()
    assert found.miner.near(0, 5, torch.Generator()).prompts == ()


def test_an_empty_bank_is_refused(pipe: Any) -> None:
    with pytest.raises(efface.EffaceError, match="The bank is empty: give phrases"):
        mined(pipe, request(), exclude=PHRASES)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("sampler", ["isotropic", "covariance"])
def test_noise_keeps_to_its_tokens_and_to_the_window_of_every_encoder(family: Any, sampler: Any) -> None:
    pipe = tiny_pipeline(family)
    found, prompts = mined(pipe, request(), sampler=sampler)
    points = found.miner.near(0, 20, torch.Generator().manual_seed(0))
    original = prompts.targets.hidden[0]
    subject = int(prompts.targets.subject[0])
    assert torch.equal(points.hidden[:, :subject], original[:subject].expand(20, -1, -1))
    blocks = text_blocks(efface.Model(pipe), original.shape[1])
    assert len(blocks) == (2 if family == "sdxl" else 1)
    parts = [(points.hidden[:, subject:, block], original[subject:, block]) for block in blocks]
    if family == "sdxl":
        parts.append((points.pooled, prompts.targets.pooled[0]))  # type: ignore[index, arg-type]
    for perturbed, e in parts:
        cosine = cosine_similarity(perturbed.flatten(1), e.flatten()[None])
        assert 0.5 - 1e-5 < float(cosine.min()) < float(cosine.max()) < 0.9 + 1e-5


def test_noise_on_all_tokens_reaches_the_first(pipe: Any) -> None:
    found, prompts = mined(pipe, request(), sampler="isotropic", tokens="all", bank_weight=0.0)
    point = found.miner.beyond(0, 1, torch.Generator().manual_seed(0))
    assert not torch.equal(point.hidden[0, 0], prompts.targets.hidden[0, 0])
    assert found.others is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"s_lo": 0.95, "sampler": "isotropic"}, "cosines in this order"),
        ({"s_beyond": 0.95}, "cosines in this order"),
        ({"moments": "analytic"}, "moments=analytic is for sampler=isotropic, not snap"),
        ({"sampler": "random"}, "'sampler' of realera must be one of snap, covariance, isotropic"),
        ({"steps": -1}, "'steps' of realera must be at least 0"),
    ],
)
def test_settings_it_cannot_take_are_refused(settings: Any, message: str, pipe: Any) -> None:
    with pytest.raises(efface.BadSetting, match=message):
        efface.erase(pipe, "cat", anchor="dog", method="realera", settings=settings)
