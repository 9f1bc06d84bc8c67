"""`efface evaluate`: a table for people, JSON for programs, and pictures that are found again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from efface_hooks import Wiring

Run = Callable[..., Result]
Refused = Callable[..., str]

JUDGE = """
from dataclasses import dataclass

import numpy as np

import efface


class Judge(efface.Suite):
    name = "judge"
    summary = "cats and dogs"
    digest = "1"
    guidance = 3.0
    example = efface.Request((efface.Concept("cat", "dog"),))

    def accepts(self, model):
        return model.pipe.unet.config.sample_size == 8

    def concepts(self, kind=None):
        return [efface.SuiteConcept(one, held_out=(f"a {one}",)) for one in ("cat", "dog") if kind in (None, "object")]

    def templates(self, kind):
        return ["a {}"]

    def found(self, images, concept):
        return np.array([np.asarray(image).mean() / 255 > 0.5 for image in images], dtype=float)


@dataclass(frozen=True)
class Strict(Judge):
    name = "strict"
    threshold: float = efface.setting(0.5, help="How bright the picture of a cat is.")
    network: str | None = efface.setting(None, help="Who sees it.")

    @property
    def facts(self):
        return {"network_sha256": "0123456789abcdef", "threshold": self.threshold}

    def prepare(self):
        if self.network is None:
            raise efface.BadSetting("strict needs the setting network")

    def found(self, images, concept):
        return np.array([np.asarray(image).mean() / 255 > self.threshold for image in images], dtype=float)


class Blind(Judge):
    name = "blind"
    summary = "accepts nothing"

    def accepts(self, model):
        return False


@efface.hookimpl
def efface_suites():
    return [Judge(), Blind(), Strict()]
"""

EVALUATE = ("evaluate", "tiny", "--erasure", "dim-cat.safetensors", "--steps", "1")


@pytest.fixture(autouse=True)
def judge(install: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install("efface-judge", {"efface_judge": JUDGE}, "[efface]\njudge = efface_judge\n", plugin="judge")
    monkeypatch.setenv("EFFACE_CACHE", str(tmp_path / "usual"))


@pytest.fixture(autouse=True)
def shots(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The prompts that pictures were made of, bright ones without an edit, dark ones with one."""

    def generate(pipe: Any, prompts: Any, seeds: Any, **how: Any) -> list[Image.Image]:
        made.extend(prompts)
        level = 100 if Wiring.of(pipe) else 200
        gray = [level + int(hashlib.sha256(f"{prompts} {seed} {how}".encode()).hexdigest()[0], 16) for seed in seeds]
        return [Image.fromarray(np.full((4, 4, 3), one, dtype=np.uint8)) for one in gray]

    made: list[str] = []
    monkeypatch.setattr("efface.evaluation.studio.generate", generate)
    return made


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.usefixtures("erasure")
def test_a_table_says_each_figure_with_interval_and_number(run: Run) -> None:
    result = run(*EVALUATE, "--seeds", "5", "--seed", "3")
    assert (result.exit_code, result.stderr) == (0, "")
    assert [" ".join(line.split()) for line in result.stdout.splitlines()] == [
        "cat",
        "efficacy 0.000 [0.000, 0.434] of 5",
        "efficacy_base 1.000 [0.566, 1.000] of 5",
        "anchor 0.000 [0.000, 0.434] of 5",
        "generality 0.000 [0.000, 0.434] of 5",
        "generality_base 1.000 [0.566, 1.000] of 5",
        "specificity_drop 1.000 [-0.193, 1.000] of 2",
        "specificity_worst 1.000 [-0.193, 1.000] of 2, dog",
        "specificity_never_kept -",
        "locality_other -",
        "locality_other_base -",
        "locality_outside_mae -",
        "fidelity_mae -",
        "quality -",
        "5 seeds (3–7), 1 step of DPMSolverMultistepScheduler, guidance 3; "
        "judged by judge; 95 % intervals in brackets.",
    ]


@pytest.mark.usefixtures("erasure")
def test_controls_have_tables_and_quick_says_so(run: Run) -> None:
    lines = run(*EVALUATE, "--quick", "--controls").stdout.splitlines()
    assert [line for line in lines if line.startswith("Control")] == [
        "Control noise, which has to look bad:",
        "Control blank, which has to look bad:",
    ]
    assert len([line for line in lines if line.startswith("efficacy ")]) == 3
    assert lines[-1].startswith("Quick: 10 seeds (0–9), ")


@pytest.mark.usefixtures("erasure")
def test_of_several_erasures_each_is_seen_alone(run: Run, place: Path) -> None:
    run("erase", "tiny", "--concept", "dog", "--anchor", "cat", "--method", "dim", "-o", "dim-dog.safetensors")
    both = (*EVALUATE, "--erasure", "dim-dog.safetensors", "--seeds", "2")
    lines = [" ".join(line.split()) for line in run(*both).stdout.splitlines()]
    assert lines[-5:-1] == [
        "Shown with each erasure alone, and with all of them:",
        "base dim-cat dim-dog stack",
        "cat 1.000 0.000 0.000 0.000",
        "dog 1.000 0.000 0.000 0.000",
    ]
    assert json.loads(run(*both, "--no-alone", "--json").stdout)["alone"] == []


@pytest.mark.usefixtures("erasure")
def test_json_is_the_evaluation_and_so_is_the_file(run: Run, place: Path) -> None:
    result = run(*EVALUATE, "--quick", "--guidance", "2", "--scale", "0.5", "--json", "-o", "found.json")
    data = json.loads(result.stdout)
    assert data == json.loads((place / "found.json").read_text())
    assert list(data) == ["concepts", "controls", "seeds", "quick", "sampling", "model", "suite", "erasures", "alone"]
    assert data["concepts"]["cat"]["efficacy"].keys() == {"value", "low", "high", "n"}
    assert data["concepts"]["cat"]["quality"] is None
    assert (data["quick"], data["seeds"], data["sampling"]["guidance"]) == (True, list(range(10)), 2)
    assert [one["scale"] for one in data["erasures"]] == [0.5]
    assert "seconds" not in result.stdout


@pytest.mark.usefixtures("erasure")
def test_a_suite_is_told_its_settings_and_says_what_it_rests_on(run: Run) -> None:
    strict = (*EVALUATE, "--seeds", "2", "--suite", "strict", "--suite-set", "network=eye")
    assert "judged by strict (network_sha256 0123456789ab, threshold 0.5); 95 %" in run(*strict).stdout
    data = json.loads(run(*strict, "--suite-set", "threshold=0.9", "--json").stdout)
    assert data["suite"]["settings"] == {"threshold": 0.9, "network": "eye"}
    assert data["suite"]["facts"] == {"network_sha256": "0123456789abcdef", "threshold": 0.9}
    assert data["concepts"]["cat"]["efficacy_base"]["value"] == 0, "no picture is that bright"


@pytest.mark.usefixtures("erasure")
def test_fifty_seeds_are_usual(run: Run) -> None:
    assert json.loads(run(*EVALUATE, "--json").stdout)["seeds"] == list(range(50))


@pytest.mark.usefixtures("erasure")
@pytest.mark.parametrize(("options", "folder"), [([], "usual"), (["--cache", "deep/in"], "here/deep/in")])
def test_pictures_are_found_again(run: Run, shots: list[str], tmp_path: Path, options: list[str], folder: str) -> None:
    first = run(*EVALUATE, "--seeds", "2", *options)
    assert len(files(tmp_path / folder)) == len(shots) > 5
    shots.clear()
    assert run(*EVALUATE, "--seeds", "2", *options).stdout == first.stdout
    assert shots == []


@pytest.mark.usefixtures("erasure")
def test_without_a_cache_nothing_stays(run: Run, tmp_path: Path, place: Path) -> None:
    assert run(*EVALUATE, "--seeds", "2", "--no-cache").exit_code == 0
    assert not (tmp_path / "usual").exists()
    assert [path.name for path in files(place)] == ["dim-cat.safetensors"]


@pytest.mark.usefixtures("erasure")
def test_an_interruption_says_where_the_pictures_are_and_the_next_run_goes_on(
    run: Run, shots: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from efface.evaluation import studio

    generate = studio.generate

    def thrice(*arguments: Any, **how: Any) -> Any:
        if len(shots) == 3:
            raise KeyboardInterrupt
        return generate(*arguments, **how)

    monkeypatch.setattr(studio, "generate", thrice)
    result = run(*EVALUATE, "--seeds", "2", "--cache", "pictures")
    assert (result.exit_code, result.stderr) == (130, "Interrupted; written: pictures\n")
    monkeypatch.setattr(studio, "generate", generate)
    shots.clear()
    run(*EVALUATE, "--seeds", "2", "--cache", "pictures")
    resumed = len(shots)
    shots.clear()
    run(*EVALUATE, "--seeds", "2", "--no-cache")
    assert resumed == len(shots) - 3


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("efface.loading.load", None)


@pytest.mark.usefixtures("no_model", "erasure")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--suite", "jury"], "No suite 'jury'; installed: blind, judge, strict."),
        (["--suite-set", "a=1"], "--suite-set is for the suite that --suite names"),
        (["--suite", "judge", "--suite-set", "a=1"], "Suite 'judge' has no settings"),
        (["--suite", "strict", "--suite-set", "a"], "--suite-set takes NAME=VALUE, such as --suite-set clip="),
        (["--suite", "strict", "--suite-set", "eye=1"], "strict: No setting 'eye'; it has: network, threshold."),
        (["--suite", "strict"], "strict needs the setting network"),
        (["--cache", "x", "--no-cache"], "--cache names a folder and --no-cache wants none: give one of them"),
        (["--cache", "dim-cat.safetensors"], "Cannot write to dim-cat.safetensors: "),
        (["--scale", "1", "--scale", "2"], "2 times --scale for 1 erasures"),
        (["--erasure", "none.safetensors"], "none.safetensors: No such file or directory"),
        (["-o", "dim-cat.safetensors"], "dim-cat.safetensors is there already; overwrite it with --force"),
        (["-o", "nowhere/found.json"], "Cannot save nowhere/found.json: "),
    ],
)
def test_what_cannot_work_is_refused_before_a_model_is_loaded(
    refused: Refused, options: list[str], message: str
) -> None:
    assert refused(*EVALUATE, *options).startswith(message)


@pytest.mark.usefixtures("no_model")
def test_without_an_erasure_there_is_nothing_to_evaluate(refused: Refused) -> None:
    assert refused("evaluate", "tiny").startswith(
        "Nothing is erased, so there is nothing to evaluate: give --erasure FILE"
    )


@pytest.mark.usefixtures("erasure")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--suite", "blind"], "Suite 'blind' does not accept tiny: accepts nothing"),
        (["--steps", "1001"], "This model has 1000 timesteps: 1001 steps are more than that"),
    ],
)
def test_what_the_model_does_not_allow_is_refused(refused: Refused, options: list[str], message: str) -> None:
    assert refused(*EVALUATE, *options) == message


def test_a_concept_that_nobody_can_tell_is_refused(run: Run, refused: Refused, place: Path) -> None:
    run("erase", "tiny", "--concept", "bird", "--method", "dim", "-o", "dim-bird.safetensors")
    said = refused("evaluate", "tiny", "--erasure", "dim-bird.safetensors")
    assert said == "No concept 'bird'; judge can tell: cat, dog."


@pytest.fixture
def other_model(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINY_MODEL", str(models / "other"))


@pytest.mark.usefixtures("erasure", "other_model")
def test_another_base_has_to_be_allowed(run: Run, refused: Refused) -> None:
    assert refused(*EVALUATE).startswith("This erasure was made for other weights")
    result = run(*EVALUATE, "--seeds", "2", "--allow-other-base", "--json")
    assert json.loads(result.stdout)["erasures"][0]["other_base"] is True
