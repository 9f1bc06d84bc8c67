"""`efface card`: the page of an erasure says what it is, and no figure that is not its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import Result

from efface.card import card
from efface.concept import Concept, Request
from efface.erasure import Erasure
from efface.errors import UnknownMethod
from efface.header import Header, TensorSpec, canonical_json
from efface.method import Covers

Run = Callable[..., Result]
Refused = Callable[..., str]

BLOCK = "unet.mid_block.attentions.0.transformer_blocks.0"


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
        "quick": True,
        "sampling": {"scheduler": "DDIMScheduler", "steps": 15, "guidance": 4.0, "libraries": {"torch": "2.13"}},
        "model": {"name": "tiny", "weights_sha256": "c0ffee"},
        "suite": {
            "name": "judge",
            "summary": "cats and dogs",
            "digest": "1a2b",
            "settings": {"clip": "vit_b"},
            "facts": {"threshold": 0.25, "weights sha256": "beef"},
        },
    }


def test_the_page_has_model_concepts_method_settings_and_limits(run: Run, file: Path) -> None:
    assert run("card", file.name, "--base-model", "owner/name").stdout == "README.md\n"
    text = (file.parent / "README.md").read_text()
    head = '---\nlibrary_name: efface\npipeline_tag: text-to-image\nbase_model: "owner/name"\ntags:\n'
    assert text.startswith(head)
    for line in (
        "# cat, erased by dim",
        '    erasure = efface.Erasure.load("dim-cat.safetensors")'.strip(),
        "| cat | kitten | dog | object |",
        "Kept on purpose: a bird.",
        "Templates of the fit: {}.",
        'pipe = efface.load("owner/name")',
        "Made for owner/name, a StableDiffusionPipeline in float32.",
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
    for line in (
        "On tiny, 2 seeds (0, 1), 15 steps of DDIMScheduler, guidance 4; 95 % intervals in brackets.",
        "A quick look: few pictures, and so wide intervals.",
        "Judged by judge, cats and dogs, digest 1a2b, clip vit\\_b, threshold 0.25, weights sha256 beef.",
        "Made with torch 2.13, weights\\_sha256 c0ffee.",
        "| `efficacy` | 0.020 (0.000 to 0.100), n = 50 |",
        "Not measured, as the model or the judge cannot tell: `quality`.",
    ):
        assert line in text.splitlines()
    assert "No figures were given" not in text


def test_one_seed_and_one_step_are_not_several(run: Run, file: Path) -> None:
    found = figures(Erasure.load(file)) | {"seeds": [7]}
    found["sampling"] |= {"steps": 1}
    del found["suite"]
    (file.parent / "figures.json").write_text(json.dumps(found))
    run("card", file.name, "--figures", "figures.json")
    text = (file.parent / "README.md").read_text()
    assert "On tiny, 1 seed (7), 1 step of DDIMScheduler" in text
    assert "Who judged is not in these figures." in text


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ([], "These are not the figures that efface evaluate --json prints: a list"),
        ({"concepts": []}, "'concepts' is none"),
        ({"suite": "clip"}, "'suite' is clip"),
        ({"erasures": ["uce-cat"]}, "'erasures' holds something else than objects"),
        ({"concepts": {"cat": 3}}, "'concepts' holds something else than objects"),
        ({"concepts": {"cat": {"efficacy": {"value": 1}}}}, "'efficacy' of 'cat' lacks a value, low, high or n"),
    ],
)
def test_what_are_no_figures_is_refused(change: Any, told: str, refused: Refused, file: Path) -> None:
    given = figures(Erasure.load(file)) | change if isinstance(change, dict) else change
    (file.parent / "figures.json").write_text(json.dumps(given))
    assert told in refused("card", file.name, "--figures", "figures.json")


def test_without_a_base_model_the_page_says_what_it_was_made_for(run: Run, file: Path) -> None:
    found = run("card", file.name)
    assert found.stderr.startswith("Warning: README.md names no base model")
    assert "--base-model OWNER/NAME gives it" in found.stderr
    text = (file.parent / "README.md").read_text()
    assert "base_model" not in text
    assert "pipe = ...  # the model that it was made for, see Base" in text.splitlines()
    base = Erasure.load(file).header.base
    sketches = hashlib.sha256(canonical_json(base["weights"]).encode()).hexdigest()
    assert f"Structure: sha256 `{base['structure']}`. Sketches of its weights: sha256 `{sketches}`." in text
    assert "`efface card FILE --base-model OWNER/NAME` puts a hub id here." in text


@pytest.mark.parametrize("name", ["", "./path", "a/b: c", "model", "a/b/c", "a/..", "a\nb/c"])
def test_a_base_model_is_a_hub_id(name: str, refused: Refused, file: Path) -> None:
    told = refused("card", file.name, "--base-model", name)
    assert told.startswith("A base model is named by its hub id (OWNER/NAME; base=..., --base-model), not ")


def test_ways_around_it_are_those_of_the_method_and_of_the_places_it_edits(tmp_path: Path) -> None:
    class Quiet:
        name = "dim"
        covers = Covers(bypassed_by=())

    class Speaking(Quiet):
        covers = Covers(bypassed_by=("image prompts", "SDXL's pooled text embedding"))

    class Mute:
        name = "dim"

    pooled = "Goes around it: the pooled embedding of text_encoder_2."
    for method, points, told in (
        (Quiet, ("unet.skip.0",), "- The method names nothing that goes around it."),
        (Quiet, ("unet.text",), f"- {pooled}"),
        (Quiet, (f"{BLOCK}.attn2.to_out.0", f"{BLOCK}.attn2.to_q"), f"- {pooled}"),
        (Quiet, (f"{BLOCK}.attn2.to_k", f"{BLOCK}.attn1.to_k"), "- The method names nothing that goes around it."),
        (Quiet, ("unet.text", "text_encoder_2.text_projection"), "- The method names nothing that goes around it."),
        (Quiet, ("text_encoder.layers.0.mlp.fc2",), "- Goes around it: text_encoder_2, which reads prompts as well."),
        (Mute, ("unet.text",), f"- {pooled} The method does not say what goes around it."),
        (Speaking, ("unet.text",), "- Goes around it: image prompts, SDXL's pooled text embedding."),
    ):
        assert told in page(tmp_path, points, lambda header, method=method: method)

    def absent(header: object) -> None:
        raise UnknownMethod("dim")

    assert f"- {pooled} The method is not here to be asked what else may." in page(tmp_path, ("unet.text",), absent)


def page(folder: Path, points: tuple[str, ...], method_of: Callable[..., Any]) -> list[str]:
    """The lines of a card for an erasure at these points of an SDXL."""
    sketches = {f"{name}.weight": [0.0] * 8 for name in ("text_encoder", "text_encoder_2", "unet")}
    header = Header(
        method="dim",
        distribution="",
        version="",
        settings={},
        request=Request((Concept("cat"),)),
        base={"pipeline": "StableDiffusionXLPipeline", "dtype": "float32", "structure": "", "weights": sketches},
        points=points,
        seed=0,
        libraries={},
        facts={},
        report={},
        tensors={"up": TensorSpec((1,), "float32")},
    )
    Erasure(header, {"up": torch.zeros(1)}).save(folder / "x.safetensors")
    registry: Any = SimpleNamespace(method_of=method_of)
    return card(folder / "x.safetensors", registry=registry).splitlines()


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
