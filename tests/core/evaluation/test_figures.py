"""Each figure on painted pictures whose answer is plain to see."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from efface import Concept, PluginError, Request
from efface.evaluation.figures import scores
from efface.evaluation.kernel import relative_distance
from efface.evaluation.scores import Scores
from efface.evaluation.targets import Target, Targets
from efface.evaluation.viewing import View

NOISE = 200
Rule = Callable[[str, int], Any]


@pytest.fixture
def target(colours: Any) -> Target:
    return Targets(colours, (Request((Concept("cat", "dog"),)),), "a picture", tuple(range(10)), 10).all()[0]


@pytest.fixture
def honest(painted: Any) -> Rule:
    """A painter who draws what the prompt names, a kitten as a cat, with a gray that depends on the seed."""

    def draw(prompt: str, seed: int) -> Any:
        words = prompt.replace("kitten", "cat").replace("tabby", "cat").split()
        return painted(*(word for word in words if word in ("cat", "dog", "bird")), gray=40 + seed % 10)

    return draw


def view(suite: Any, rule: Rule) -> View:
    return View(suite, lambda draws: [rule(draw.prompt, seed) for draw in draws for seed in draw.seeds])


@pytest.fixture
def judged(colours: Any, target: Target, honest: Rule) -> Callable[..., Scores]:
    def judge(after: Rule, before: Rule = honest, of: Target = target) -> Scores:
        return scores(of, view(colours, before), view(colours, after))

    return judge


def values(found: Scores) -> dict[str, Any]:
    return {name: None if one is None or isinstance(one, str) else one.value for name, one in vars(found).items()}


def test_an_erasure_that_does_nothing_loses_and_changes_nothing(judged: Any, honest: Rule) -> None:
    found = values(judged(honest))
    assert found.pop("quality") > 2  # cats are no dogs
    assert found == {
        "efficacy": 1,
        "efficacy_base": 1,
        "anchor": 0,
        "generality": 1,
        "generality_base": 1,
        "specificity_drop": 0,
        "specificity_worst": 0,
        "specificity_never_kept": 0,
        "locality_other": 1,
        "locality_other_base": 1,
        "locality_outside_mae": 0,
        "fidelity_mae": 0,
        "worst": None,
    }


def test_cats_that_became_dogs_are_gone_and_as_good_as_dogs(judged: Any, honest: Rule) -> None:
    found = values(judged(lambda prompt, seed: honest(prompt.replace("cat", "dog"), seed)))
    assert (found["efficacy"], found["efficacy_base"], found["anchor"]) == (0, 1, 1)
    assert found["quality"] == pytest.approx(1, abs=0.01)
    assert (found["specificity_drop"], found["locality_other"]) == (0, 1)


def test_generality_is_about_held_out_words(judged: Any, honest: Rule) -> None:
    found = judged(lambda prompt, seed: honest(prompt.replace("kitten", "fish"), seed))
    assert (found.efficacy.value, found.generality.value, found.generality.n) == (1, 0.5, 10)


def test_specificity_is_what_others_lost_and_names_the_worst(judged: Any, honest: Rule) -> None:
    found = judged(lambda prompt, seed: honest(prompt.replace("bird", "" if seed else "bird"), seed))
    assert (found.specificity_worst.value, found.specificity_worst.n, found.worst) == (0.5, 2, "bird")
    assert (found.specificity_drop.value, found.specificity_drop.n) == (pytest.approx(1 / 6), 6)
    assert found.specificity_never_kept == found.specificity_worst


def test_specificity_counts_pairs_so_that_gains_make_up_for_losses(judged: Any, honest: Rule) -> None:
    def before(prompt: str, seed: int) -> Any:
        return honest(prompt.replace("bird", "" if seed else "bird"), seed)

    def after(prompt: str, seed: int) -> Any:
        return honest(prompt.replace("bird", "bird" if seed else ""), seed)

    found = judged(after, before)
    assert (found.specificity_never_kept.value, found.specificity_never_kept.n) == (0, 2)
    assert found.specificity_never_kept.high > 0.5


def test_locality_takes_scenes_whose_base_shows_the_concept(judged: Any, honest: Rule) -> None:
    def before(prompt: str, seed: int) -> Any:
        """Of two scenes, each at five seeds: three without a cat, two more without a dog."""
        prompt = prompt.replace("cat and", "tree and") if seed in (0, 1, 5) else prompt
        return honest(prompt.replace("and a dog", "and a tree") if seed in (2, 3) else prompt, seed)

    def after(prompt: str, seed: int) -> Any:
        return honest(prompt if "and" not in prompt else "a dog" if "dog" in prompt else "a fish", seed)

    found = judged(after, before)
    assert (found.locality_other_base.value, found.locality_other_base.n) == (5 / 7, 7)
    assert (found.locality_other.value, found.locality_other.n) == (3 / 7, 7)
    assert found.locality_outside_mae.n == 5  # the base shows both


def test_change_outside_is_measured_beyond_the_margin_of_the_base_region(judged: Any, honest: Rule) -> None:
    def after(prompt: str, seed: int) -> Any:
        pixels = np.array(honest(prompt, seed))
        if "and" in prompt:
            pixels[:12, :12] = 0  # the cat's 8 x 8 and 4 more
            pixels[15, 15] += 102
        return Image.fromarray(pixels)

    found = judged(after)
    assert found.locality_outside_mae.value == pytest.approx(0.4 / (16 * 16 - 12 * 12))


def test_fidelity_is_the_change_of_unrelated_prompts(judged: Any, honest: Rule, painted: Any) -> None:
    found = judged(lambda prompt, seed: painted(gray=91 + seed) if prompt == "a tree" else honest(prompt, seed))
    assert (found.fidelity_mae.value, found.fidelity_mae.n) == (pytest.approx(0.2 / 2), 10)


def test_quality_compares_with_the_anchor_at_other_seeds(
    judged: Any, colours: Any, target: Target, honest: Rule, painted: Any
) -> None:
    def before(prompt: str, seed: int) -> Any:
        return painted("dog", gray=40 + 3 * seed)

    def after(prompt: str, seed: int) -> Any:
        return painted("dog", gray=50 + 3 * seed)

    def features(gray: int, seeds: Any) -> Any:
        return colours.features([painted("dog", gray=gray + 3 * seed) for seed in seeds])

    same, others = range(10), range(10, 20)
    wanted = relative_distance(features(50, same), features(40, others), features(40, same))
    assert judged(after, before).quality == wanted


def test_what_a_suite_cannot_tell_is_none(colours: Any, target: Target, honest: Rule) -> None:
    colours.features = lambda images: None
    colours.region = lambda images, concept: None
    nothing: Sequence[Any] = ()
    bare = replace(target, anchor=None, held_out=(), others={}, never_kept=(), scenes=(), unrelated=nothing)
    full = values(scores(target, view(colours, honest), view(colours, honest)))
    empty = values(scores(bare, view(colours, honest), view(colours, honest)))
    assert {name for name, value in full.items() if value is None} == {"quality", "locality_outside_mae", "worst"}
    assert {name for name, value in empty.items() if value is not None} == {"efficacy", "efficacy_base"}


@pytest.mark.parametrize(
    ("question", "answer", "said"),
    [
        ("found", lambda images, concept: np.zeros(1), r"found with shape \(1,\), not \(2,\)"),
        ("found", lambda images, concept: np.full(len(images), np.nan), "found with numbers that are not finite"),
        ("features", lambda images: np.zeros(len(images)), r"features with shape \(10,\), not \(10, 1\)"),
        (
            "region",
            lambda images, concept: np.zeros((len(images), 4, 4)),
            r"region with shape \(5, 4, 4\), not \(5, 16, 16\)",
        ),
    ],
)
def test_an_answer_of_another_form_is_the_suites_fault(
    colours: Any, target: Target, honest: Rule, question: str, answer: Any, said: str
) -> None:
    setattr(colours, question, answer)
    with pytest.raises(PluginError, match=f"Suite 'words' answers {said}"):
        scores(target, view(colours, honest), view(colours, honest))


def test_half_sure_is_shown(colours: Any, target: Target, honest: Rule) -> None:
    for sure, shown in ((0.5, 1), (0.49, 0)):
        colours.found = lambda images, concept, sure=sure: np.full(len(images), sure)
        found = scores(target, view(colours, honest), view(colours, honest)).efficacy
        assert found is not None
        assert found.value == shown


def test_json_has_every_figure(judged: Any, honest: Rule) -> None:
    found = judged(honest).to_json()
    assert found["efficacy"] == {"value": 1.0, "low": pytest.approx(0.722, abs=1e-3), "high": 1.0, "n": 10}
    assert found["specificity_worst_concept"] in ("dog", "bird", "cubism")
