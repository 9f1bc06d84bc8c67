"""`efface attack`: what it says and writes, and what it refuses before it begins."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

Run = Callable[..., Result]
Refused = Callable[..., str]

ATTACK = ("attack", "tiny", "--erasure", "dim-cat.safetensors", "--by", "inversion", "--seeds", "2", "--steps", "1")
QUICK = (*ATTACK, "--set", "steps=1")


@pytest.fixture
def erasure(run: Run) -> None:
    assert run("erase", "tiny", "--concept", "cat", "--anchor", "dog", "--method", "dim").exit_code == 0


@pytest.fixture
def suite(install: Any, judge: str) -> None:
    """The judge, who finds every picture bright enough."""
    bright = judge.replace(".mean() / 255", ".mean() * 0 + 1")
    install("efface-jury", {"efface_jury": bright}, "[efface]\njury = efface_jury\n", plugin="jury")


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails where a model is loaded."""

    def fail(*arguments: object, **options: object) -> None:
        raise AssertionError

    monkeypatch.setattr("efface.cli.attack.open_model", fail)


@pytest.mark.usefixtures("erasure", "suite")
def test_a_report_says_what_an_evaluation_says_of_model_suite_and_erasures(run: Run, place: Path) -> None:
    table = run(*QUICK, "-o", "found.json")
    assert table.exit_code == 0, table.output
    assert table.stdout.splitlines()[0].split("  ")[0] == "attack"
    assert "100% (34% to 100%)" in table.stdout
    (found,) = json.loads((place / "found.json").read_text())
    told = run("evaluate", "tiny", "--erasure", "dim-cat.safetensors", "--seeds", "2", "--steps", "1", "--json")
    evaluated = json.loads(told.stdout)
    for name in ("model", "suite", "erasures", "seeds"):
        assert found[name] == evaluated[name]
    for name in ("scheduler", "steps", "guidance", "batch_size", "libraries"):
        assert found["sampling"][name] == evaluated["sampling"][name]


@pytest.mark.usefixtures("erasure")
def test_where_nobody_judges_it_says_so_once_and_what_to_do(run: Run) -> None:
    result = run(*QUICK)
    assert result.exit_code == 0, result.output
    heads, row, note = result.stdout.splitlines()
    assert heads.split() == ["attack", "concept", "loss", "prompt"]
    assert row.split()[:2] == ["inversion", "cat"]
    assert note == "No suite accepts tiny, so nobody judged its pictures; name one by --suite (installed: none)."
    assert json.loads(run(*QUICK, "--json").stdout)[0]["suite"] is None


@pytest.mark.usefixtures("erasure", "unloaded")
def test_a_template_without_a_place_is_refused_before_the_model_is_loaded(refused: Refused) -> None:
    assert refused(*QUICK, "--template", "no place") == (
        "Template 'no place' must hold {} exactly once, where the concept goes"
    )


@pytest.mark.usefixtures("erasure")
def test_what_would_be_cut_off_is_refused_before_any_search(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("efface.attack.attack", None)
    both = tuple(one for one in ATTACK if one not in ("--by", "inversion"))
    assert "longer than the 16 tokens" in refused(*both, "--template", "a cat" * 4 + " {}" + " bird" * 7)
    assert "now 15) or a shorter template" in refused(*ATTACK, "--set", "words=15")


@pytest.mark.usefixtures("erasure")
def test_a_search_that_diverges_is_a_users_error(refused: Refused) -> None:
    assert "smaller rate" in refused(*QUICK, "--set", "rate=1e38", "-o", "found.json")


@pytest.mark.usefixtures("erasure", "suite")
def test_a_suite_that_does_not_accept_the_model_is_refused(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    from efface import Registry

    monkeypatch.setattr(type(Registry.installed().suite("judge")), "accepts", lambda suite, model: False)
    assert refused(*QUICK, "--suite", "judge") == "Suite 'judge' does not accept tiny: cats and dogs"
