"""On the embedded model no control passes for an erasure: both lose the other concepts, and the pictures are bad."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import efface
from efface.evaluation import Evaluation, evaluate

SEEDS = range(5)
STEPS = 6


@pytest.fixture(scope="module")
def found() -> Iterator[Evaluation]:
    """The controls beside an erasure that is switched off, which costs no pictures: it is the base."""
    registry = efface.Registry.installed()
    pipe = efface.load("picturebook", registry=registry)
    erasure = efface.erase(pipe, "cat", anchor="fish", method="uce", registry=registry)
    before = torch.get_rng_state()
    yield evaluate(
        pipe,
        [erasure],
        scales=[0.0],
        model="picturebook",
        registry=registry,
        suite=registry.suite("picturebook"),
        seeds=SEEDS,
        steps=STEPS,
        controls=["noise", "blank"],
    )
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("control", ["noise", "blank"])
def test_a_control_is_gone_with_everything_else(found: Evaluation, control: str) -> None:
    scores, base = found.controls[control]["cat"], found.concepts["cat"]
    assert scores.efficacy is not None
    assert base.efficacy is not None
    assert scores.specificity_drop is not None
    assert scores.quality is not None
    assert scores.efficacy.value < base.efficacy.value, "the concept is gone"
    assert scores.specificity_drop.low > 0.2, "and so are the others"
    assert scores.quality.low > 1.5, "and the pictures are none of the anchor"


def test_the_base_itself_loses_nothing(found: Evaluation) -> None:
    scores = found.concepts["cat"]
    assert scores.efficacy == scores.efficacy_base
    assert scores.specificity_drop is not None
    assert scores.fidelity_mae is not None
    assert (scores.specificity_drop.value, scores.fidelity_mae.value) == (0, 0)
