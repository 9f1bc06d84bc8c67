"""`efface demo --compose`: several concepts by several methods on one pipeline, and the page of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

Run = Callable[..., Result]
Refused = Callable[..., str]

SUITE = """
import numpy as np

import efface


class Pair(efface.Suite):
    name = "pair"
    summary = "cats and dogs"
    digest = "1"
    guidance = 3.0
    example = efface.Request((efface.Concept("cat", "tree"),))
    stack = (efface.Concept("cat", "tree"), efface.Concept("dog", "house"))

    def accepts(self, model):
        return True

    def concepts(self, kind=None):
        return [efface.SuiteConcept(one) for one in ("cat", "dog", "bird") if kind in (None, "object")]

    def templates(self, kind):
        return ["a {}"]

    def found(self, images, concept):
        return np.array([np.asarray(image).mean() / 255 > 0.5 for image in images], dtype=float)


@efface.hookimpl
def efface_suites():
    return [Pair()]
"""

COMPOSE = ("demo", "tiny", "--compose", "--method", "dim", "--seeds", "1", "--steps", "1")


@pytest.fixture
def pair(install: Any) -> None:
    install("efface-pair", {"efface_pair": SUITE}, "[efface]\npair = efface_pair\n", plugin="pair")


@pytest.mark.usefixtures("pair")
def test_all_of_it_is_on_a_page_and_said_in_lines(run: Run, place: Path) -> None:
    result = run(*COMPOSE, "--no-figures")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines[0] == "erasure becomes fit shown, alone shown, together"
    assert [line.split()[:2] for line in lines[1:3]] == [["dim-cat", "tree"], ["dim-dog", "house"]]
    assert lines[3] == "all other concepts lost not measured"
    assert lines[4] == "in the order dim-dog, dim-cat: bit-identical latents"
    assert "taken off in a random order, bit-identical after each step and at the end: yes" in lines
    assert lines[-1] == "out/compose.html"
    assert "There are no figures: --no-figures left them out." in (place / "out" / "compose.html").read_text()


@pytest.mark.usefixtures("pair")
def test_json_is_all_that_was_found(run: Run, place: Path) -> None:
    result = run(*COMPOSE, "--no-figures", "--json", "-o", "page.html")
    data = json.loads(result.stdout)
    assert [part["concept"]["text"] for part in data["parts"]] == ["cat", "dog"]
    assert (data["page"], data["budget"]["seconds"]) == ("page.html", 1800)
    assert data["sampling"]["guidance"] == 3
    assert [path.name for path in place.iterdir()] == ["page.html"]


@pytest.mark.usefixtures("pair")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--concept", "cat"], "With --compose the suite says what is erased and shown: leave out --concept"),
        (["--prompt", "a", "--picture", "x.png"], "shown: leave out --prompt, --picture"),
        (["-o", "there.html"], "there.html is there already"),
        (["--method", "none"], "No method 'none'"),
    ],
)
def test_what_cannot_work_is_refused_before_a_model_is_loaded(
    refused: Refused, place: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], said: str
) -> None:
    monkeypatch.setattr("efface.loading.load", None)
    (place / "there.html").write_text("mine")
    assert said in refused(*COMPOSE, *options)


def test_without_a_suite_nobody_says_what_to_erase(refused: Refused) -> None:
    assert refused(*COMPOSE) == "No suite accepts tiny, so nobody says what to erase together"
