"""`efface card`: the page of an erasure says what it is, and no figure that is not its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from efface.erasure import Erasure

Run = Callable[..., Result]
Refused = Callable[..., str]


@pytest.fixture
def file(run: Run, place: Path) -> Path:
    run(
        "erase",
        "tiny",
        "--concept",
        "cat",
        "--anchor",
        "dog",
        "--synonym",
        "kitten",
        "--keep",
        "a bird",
        "--method",
        "dim",
    )
    return place / "dim-cat.safetensors"


def figures(erasure: Erasure) -> dict[str, Any]:
    """What `efface evaluate --json` prints, in short."""
    efficacy = {"value": 0.02, "low": 0.0, "high": 0.1, "n": 50}
    return {
        "concepts": {"cat": {"efficacy": efficacy, "quality": None, "specificity_worst_concept": "dog"}},
        "erasures": [{"label": "dim-cat", "sha256": erasure.digest}],
        "seeds": [0, 1],
        "sampling": {"scheduler": "DDIMScheduler", "steps": 15, "guidance": 4.0},
        "model": {"name": "tiny"},
    }


def test_the_page_has_model_concepts_method_settings_and_limits(run: Run, file: Path) -> None:
    assert run("card", file.name, "--base-model", "owner/name").stdout == "README.md\n"
    text = (file.parent / "README.md").read_text()
    assert text.startswith('---\nlibrary_name: efface\nbase_model: "owner/name"\ntags:\n')
    for line in (
        "# cat, erased by dim",
        '    erasure = efface.Erasure.load("dim-cat.safetensors")'.strip(),
        "| cat | kitten | dog | object |",
        "Kept on purpose: a bird.",
        "| `strength` | 0.1 |",
        "- Goes around it: image prompts.",
        "- No figures were given for this page; `efface evaluate` makes them.",
    ):
        assert line in text.splitlines()
    assert Erasure.load(file).digest in text


def test_the_figures_are_those_that_were_measured(run: Run, file: Path) -> None:
    (file.parent / "figures.json").write_text(json.dumps(figures(Erasure.load(file))))
    run("card", file.name, "--figures", "figures.json")
    text = (file.parent / "README.md").read_text()
    assert "On tiny, 2 seeds, 15 steps of DDIMScheduler, guidance 4.0; 95 % intervals in brackets." in text
    assert "| `efficacy` | 0.020 (0.000 to 0.100), n = 50 |" in text
    assert "quality" not in text
    assert "No figures were given" not in text


def test_figures_of_another_erasure_or_of_several_are_refused(refused: Refused, file: Path) -> None:
    other = figures(Erasure.load(file)) | {"erasures": [{"label": "uce-cat", "sha256": "0" * 64}]}
    (file.parent / "figures.json").write_text(json.dumps(other))
    assert refused("card", file.name, "--figures", "figures.json").startswith(
        "These figures are of uce-cat, not of this"
    )
    assert not (file.parent / "README.md").exists()


def test_a_page_that_is_there_is_not_overwritten(run: Run, refused: Refused, file: Path) -> None:
    (file.parent / "README.md").write_text("mine")
    assert "README.md is there already" in refused("card", file.name)
    assert run("card", file.name, "--force").exit_code == 0
    assert "erased by dim" in (file.parent / "README.md").read_text()


def test_texts_cannot_break_the_page(run: Run, place: Path) -> None:
    run("erase", "tiny", "--concept", "cat | *dog*", "--method", "dim", "-o", "x.safetensors")
    run("card", "x.safetensors")
    assert "| cat \\| \\*dog\\* |" in (place / "README.md").read_text()


def test_many_concepts_are_listed_in_short(run: Run, place: Path) -> None:
    (place / "many.csv").write_text("concept\n" + "\n".join(f"cat {index}" for index in range(25)))
    run("erase", "tiny", "--concepts", "many.csv", "--method", "dim")
    run("card", "dim-many.safetensors")
    text = (place / "README.md").read_text()
    assert "# cat 0, cat 1, cat 2 and 22 more, erased by dim" in text
    assert "And 5 more; `efface show` lists them." in text
