"""The demonstration on the model that comes with the repository, with the suite that comes with it."""

from __future__ import annotations

import itertools

import pytest

import efface
from efface.report.demonstrating import demonstrate
from efface.report.demonstration import Demonstration
from efface.report.example import Wish, prompts
from efface.report.measuring import Measuring, unmeasured
from efface.report.page import page
from efface.report.sampling import Sampling


@pytest.fixture(scope="module")
def registry() -> efface.Registry:
    return efface.Registry.installed()


@pytest.fixture(scope="module")
def suite(registry: efface.Registry) -> efface.Suite:
    return registry.suite("picturebook")


@pytest.fixture(scope="module")
def found(registry: efface.Registry, suite: efface.Suite) -> Demonstration:
    """What `efface demo picturebook --method uce` finds, with one seed and with fewer steps."""
    pipe = efface.load("picturebook", registry=registry)
    assert registry.suite_for(efface.Model(pipe, registry)) is suite
    request = Wish().request(suite)
    return demonstrate(
        pipe,
        request,
        Sampling(prompts(suite, request), (0,), steps=2, guidance=suite.guidance),
        ["uce"],
        model="picturebook",
        registry=registry,
        measure=Measuring(suite, request, "picturebook", registry, steps=2),
    )


def test_picturebook_needs_no_more_than_its_name(found: Demonstration) -> None:
    assert found.sound
    roles = [prompt.role for prompt in found.sampling.prompts]
    assert roles == ["concept", "synonym", "neighbour", "scene", "control"]
    scores = found.scores(found.outcomes[0])
    assert scores is not None
    assert scores.efficacy is not None
    assert scores.efficacy.n == 10
    assert "A quick evaluation by the suite picturebook" in page(found)


def test_every_concept_of_the_suite_can_be_shown(suite: efface.Suite) -> None:
    for concept, anchor in itertools.product(suite.concepts(), (None, "boat")):
        if anchor == concept.text:
            continue
        request = Wish(concept.text, anchor).request(suite)
        shown = prompts(suite, request)
        assert shown[0].role == "concept"
        assert len({prompt.role for prompt in shown}) == len(shown) >= 3
        assert unmeasured(suite, request.concepts[0]) == ""
