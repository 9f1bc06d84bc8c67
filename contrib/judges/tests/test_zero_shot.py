"""The suites that CLIP judges: pictures whose answer is known, settings, and what they refuse."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import efface
import efface_judges
import efface_uce
from efface.concept import same
from efface.errors import BadConcept, BadSetting
from efface.evaluation import Evaluation, evaluate
from efface.suite import check_suite, configured
from efface.testing import tiny_pipeline
from efface_hooks import Wiring
from efface_judges import Artists, Mass, Objects
from efface_judges.objects import OBJECTS
from efface_judges.testing import picture, save_reading_clip
from efface_judges.zero_shot import ZeroShot

NAMES = [one.text for one in OBJECTS]
TABLE = "concept,anchor,synonyms\n" + "".join(f"{name},thing,\n" for name in NAMES[:7])


@pytest.fixture(scope="module")
def objects(folder: Path) -> Objects:
    return Objects(clip=str(folder))


@pytest.fixture
def table(tmp_path: Path) -> str:
    (tmp_path / "erased.csv").write_text(TABLE)
    return str(tmp_path / "erased.csv")


def test_each_picture_shows_its_own_object_and_no_other(objects: Objects) -> None:
    pictures = [picture(number) for number in range(10)]
    found = np.array([objects.found(pictures, name) for name in NAMES])
    assert (found > 0.99).tolist() == np.eye(10, dtype=bool).tolist()
    assert (found[~np.eye(10, dtype=bool)] < 0.01).all()


def test_of_two_the_nearer_one_is_shown(objects: Objects) -> None:
    both = [picture(3, 5)]
    cat, dog, ship = (objects.found(both, name)[0] for name in ("cat", "dog", "ship"))
    assert ship < dog < 0.5 < cat
    assert cat + dog == pytest.approx(1)


def test_a_higher_threshold_asks_for_more(folder: Path) -> None:
    probability = Objects(clip=str(folder)).found([picture(3, 5)], "cat")[0]
    at, above = (Objects(clip=str(folder), threshold=probability + more) for more in (0.0, 0.001))
    assert at.found([picture(3, 5)], "cat")[0] == 0.5
    assert above.found([picture(3, 5)], "cat")[0] < 0.5


def test_a_picture_of_no_artist_is_nearest_to_a_rival(tmp_path: Path) -> None:
    """A model that knows Rembrandt and photos."""
    save_reading_clip(tmp_path / "clip", ["rembrandt", "photo"])
    artists = Artists(clip=str(tmp_path / "clip"))
    assert (artists.found([picture(0), picture(1)], "Rembrandt") >= 0.5).tolist() == [True, False]


def test_features_are_directions(objects: Objects) -> None:
    features = objects.features([picture(0), picture(0, 1)])
    assert np.linalg.norm(features, axis=1) == pytest.approx([1, 1])


@pytest.mark.parametrize("suite", [Objects(), Artists(), Mass()])
def test_a_suite_is_one_before_it_has_a_model(suite: ZeroShot) -> None:
    check_suite(suite)
    assert suite.facts == {}
    with pytest.raises(BadSetting, match=f"Suite '{suite.name}'.*such as"):
        suite.prepare()


def test_all_four_come_with_the_plugin_and_none_is_chosen_for_a_model() -> None:
    registry = efface.Registry([efface_judges])
    assert list(registry.suites()) == ["artists", "explicit", "mass", "objects"]
    model = efface.Model(tiny_pipeline("sd1"), registry)
    assert all(suite.accepts(model) for suite in registry.suites().values())
    assert registry.suite_for(model) is None


def test_it_says_who_judged(objects: Objects) -> None:
    assert objects.facts == {**objects.judge.facts, "threshold": 0.5}
    assert {"clip", "clip_sha256", "transformers", "torch"} < set(objects.facts)


def test_the_digest_is_of_model_threshold_and_words(objects: Objects, folder: Path, tmp_path: Path) -> None:
    save_reading_clip(tmp_path / "other", ["cat"])
    others = [Objects(), Artists(clip=str(folder)), Objects(clip=str(folder), threshold=0.6)]
    others.append(Objects(clip=str(tmp_path / "other")))
    digests = [one.digest for one in (objects, *others)]
    assert len(set(digests)) == len(digests)
    assert Objects(clip=str(folder), device="cpu").digest == objects.digest


def test_what_it_cannot_tell_is_refused(objects: Objects) -> None:
    with pytest.raises(BadConcept, match=r"No concept 'skull'; objects can tell: airplane, .*"):
        objects.found([], "skull")


@pytest.mark.parametrize("suite", [Objects(), Artists()])
def test_no_word_means_two_concepts_and_every_concept_has_an_anchor(suite: ZeroShot) -> None:
    words = [same(word) for one in suite.concepts() for word in (one.text, *one.synonyms, *one.held_out)]
    assert len(set(words)) == len(words)
    assert [one.text for one in suite.stack] == [one.text for one in suite.concepts()]
    assert all(one.anchor for one in suite.stack)
    assert all(one.held_out and set(one.neighbours) <= set(suite.texts(one.kind)) for one in suite.concepts())


def test_the_ten_are_those_of_cifar() -> None:
    assert sorted(NAMES) == [
        *("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    ]
    for one in OBJECTS:
        assert not any(one.text in word.split() for word in (*one.synonyms, *one.held_out[:-1])), one
        assert len(one.held_out[-1].split()) > 3, "the last is a paraphrase"


# A table of concepts


def test_mass_tells_the_rows_of_its_table(folder: Path, table: str) -> None:
    mass = Mass(clip=str(folder), erased=table)
    mass.prepare()
    assert [one.text for one in mass.concepts()] == NAMES[:7]
    assert mass.example.concepts[0].text == "airplane"
    assert (mass.found([picture(3), picture(5)], "cat") >= 0.5).tolist() == [True, False]


def test_mass_measures_a_sample_that_the_seed_decides(table: str) -> None:
    def measured(**settings: int) -> Sequence[str]:
        return Mass(erased=table, **settings).measured(NAMES[:7])  # type: ignore[arg-type]

    chosen = measured(sample=3)
    assert chosen == measured(sample=3) != measured(sample=3, seed=1)
    assert len(chosen) == 3
    assert chosen == [name for name in NAMES if name in chosen], "in their order"
    assert measured() == NAMES[:7]


def test_what_should_stay_is_a_sample_without_what_is_erased(table: str, tmp_path: Path) -> None:
    (tmp_path / "kept.csv").write_text("concept\n" + "\n".join(NAMES))
    mass = Mass(erased=table, kept=str(tmp_path / "kept.csv"), sample=2)
    kept = [one.text for one in mass.concepts()][7:]
    assert len(kept) == 2
    assert set(kept) < set(NAMES[7:])


def test_one_concept_alone_cannot_be_told(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("concept\ncat\n")
    with pytest.raises(BadConcept, match="there is one object only: add others"):
        Mass(clip=str(folder), erased=str(tmp_path / "one.csv")).prepare()


# Settings


def test_settings_are_read_and_checked(folder: Path) -> None:
    suite = configured(Objects(), {"clip": str(folder), "threshold": "0.7"})
    assert suite == Objects(clip=str(folder), threshold=0.7)
    assert configured(suite, {"threshold": 0.8}) == Objects(clip=str(folder), threshold=0.8)
    with pytest.raises(BadSetting, match="No setting 'clap'; it has: clip, device, threshold"):
        configured(Objects(), {"clap": "x"})
    with pytest.raises(BadSetting, match=r"'threshold' of objects must be at most 0\.99"):
        configured(Objects(), {"threshold": 1})


# An evaluation whose figures are known


@pytest.fixture
def painter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of the object that a prompt names, by any word; of a dog where an edited model is asked for a cat."""

    def generate(pipe: Any, prompts: Sequence[str], seeds: Sequence[int], **how: Any) -> list[Image.Image]:
        return [_painted(prompt, bool(Wiring.of(pipe)), seed) for prompt in prompts for seed in seeds]

    monkeypatch.setattr("efface.evaluation.studio.generate", generate)


def _painted(prompt: str, edited: bool, seed: int) -> Image.Image:
    named = [one.text for one in OBJECTS if any(word in prompt for word in (one.text, *one.held_out))]
    shown = NAMES.index(named[0]) if named else 15
    # the last held-out word is one that the erasure did not reach
    hidden = edited and named == ["cat"] and "whiskered" not in prompt
    grain = 10 + int(hashlib.sha256(f"{prompt} {seed}".encode()).hexdigest(), 16) % 5
    return picture(NAMES.index("dog") if hidden else shown, grain)


@pytest.fixture
def found(painter: None, objects: Objects) -> Evaluation:
    pipe, registry = tiny_pipeline("sd1"), efface.Registry([efface_uce, efface_judges])
    erasure = efface.erase(pipe, "cat", anchor="dog", method="uce", registry=registry)
    return evaluate(pipe, [erasure], model="tiny", registry=registry, suite=objects, seeds=range(15), steps=1)


def test_an_evaluation_by_clip_finds_what_was_painted(found: Evaluation) -> None:
    scores = found.concepts["cat"]
    values = {name: one and one.value for name, one in vars(scores).items() if name != "worst"}
    assert (values["efficacy"], values["efficacy_base"], values["anchor"]) == (0, 1, 1)
    assert values["generality"] == pytest.approx(1 / 3), "one of three held-out words"
    assert values["generality_base"] == 1
    assert (values["specificity_drop"], values["specificity_worst"], values["fidelity_mae"]) == (0, 0, 0)
    assert (values["locality_other"], values["locality_outside_mae"]) == (None, None)
    assert scores.quality is not None, "edited cats are painted as the anchor is"
    assert scores.quality.value < 2


def test_the_report_names_model_threshold_and_versions(found: Evaluation, objects: Objects) -> None:
    suite = found.to_json()["suite"]
    assert suite["settings"] == {"clip": objects.clip, "threshold": 0.5, "device": "cpu"}
    assert suite["facts"] == objects.facts
    assert suite["digest"] == objects.digest


def test_a_sample_has_figures_and_no_erased_concept_counts_as_other(folder: Path, table: str, painter: None) -> None:
    pipe, registry = tiny_pipeline("sd1"), efface.Registry([efface_uce, efface_judges])
    mass = Mass(clip=str(folder), erased=table, sample=2)
    concepts = efface.read_concepts(table)[:5]
    erasure = efface.erase(pipe, concepts, method="uce", registry=registry)
    found = evaluate(pipe, [erasure], model="tiny", registry=registry, suite=mass, seeds=range(2), steps=1)
    assert list(found.concepts) == list(mass.measured(NAMES[:5]))
    drops = [scores.specificity_drop for scores in found.concepts.values()]
    assert [one.n for one in drops if one] == [4, 4], "two pictures of each of the two rows that are not erased"


def test_a_pipeline_without_texts_is_not_accepted(objects: Objects) -> None:
    assert not objects.accepts(SimpleNamespace(pipe=SimpleNamespace(vae=None)))  # type: ignore[arg-type]
