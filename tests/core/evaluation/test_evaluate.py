"""An evaluation makes each picture once, says how it was made, and leaves the pipeline as it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import efface
from efface.errors import EffaceError
from efface.evaluation.evaluating import evaluate
from efface.evaluation.gallery import Gallery
from efface.evaluation.scores import FIGURES, Evaluation
from efface_hooks import Wiring

Erasures = Mapping[str, efface.Erasure]
Evaluate = Callable[..., Evaluation]

SEEDS = (3, 4)
COMPARED = 6  # batches before and after: concept, held-out word, two others, a scene, unrelated


@pytest.fixture
def evaluated(pipe: Any, registry: efface.Registry, suite: Any, erasures: Erasures) -> Evaluate:
    """Evaluates the tilt of cats with two seeds and one step, in as few pictures as there can be."""
    suite.concepts = lambda kind=None: type(suite).concepts(suite, kind)[:3]

    def evaluated(*names: str, pipe: Any = pipe, **options: Any) -> Evaluation:
        given = {"model": "tiny", "registry": registry, "suite": suite, "seeds": SEEDS, "steps": 1} | options
        return evaluate(pipe, [erasures[name] for name in names or ("tilt",)], **given)

    return evaluated


class Camera:
    """Makes noise that prompt, seed, settings and whatever is on the U-Net decide; breaks at shot `last`."""

    def __init__(self) -> None:
        self.shots: list[tuple[str, tuple[int, ...]]] = []
        self.samplers: set[str] = set()
        self.last = 10**6

    def __call__(self, pipe: Any, prompts: Any, seeds: Any, **how: Any) -> list[Image.Image]:
        if len(self.shots) >= self.last:
            raise KeyboardInterrupt
        (prompt,) = prompts
        self.shots.append((prompt, tuple(seeds)))
        self.samplers.add(type(pipe.scheduler).__name__)
        wiring = Wiring.of(pipe)
        edits = [edit for patch in wiring.patches for edit in patch.edits] if wiring else []
        state = [(edit.verb, edit.point.name, edit.scale) for edit in edits]
        return [noise(f"{prompt} {seed} {sorted(how.items())} {state}") for seed in seeds]

    def taken(self) -> list[tuple[str, tuple[int, ...]]]:
        shots, self.shots = self.shots, []
        return shots


def noise(text: str) -> Image.Image:
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8))


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> Camera:
    """In the place of the sampler, so that pictures cost nothing."""
    camera = Camera()
    monkeypatch.setattr("efface.evaluation.studio.generate", camera)
    return camera


def test_every_figure_is_there_and_json_can_be_written(evaluated: Evaluate, camera: Camera, suite: Any) -> None:
    found = evaluated("tilt", scales=[2.0], seeds=range(20))
    data = json.loads(json.dumps(found.to_json(), allow_nan=False))
    figures = data["concepts"]["cat"]
    assert figures.keys() == {*FIGURES, "specificity_worst_concept"}
    assert {name for name in FIGURES if figures[name] is None} == {"anchor"}, "a tree, which the suite cannot tell"
    assert all(figures[name].keys() == {"value", "low", "high", "n"} for name in FIGURES if name != "anchor")
    assert (data["seeds"], data["quick"], data["controls"]) == (list(range(20)), False, {})
    assert data["suite"] == {"name": "words", "summary": "a few words", "digest": "1", "settings": {}, "facts": {}}
    assert (data["model"]["name"], len(data["model"]["weights_sha256"])) == ("tiny", 64)
    (erasure,) = data["erasures"]
    assert (erasure["method"], erasure["scale"], erasure["other_base"]) == ("tilt", 2.0, False)
    assert [one["text"] for one in erasure["concepts"]] == ["cat"]
    how = data["sampling"]
    assert (how["steps"], how["guidance"], how["batch_size"]) == (1, suite.guidance, 10)
    assert {how["scheduler"]} == camera.samplers == {"DPMSolverMultistepScheduler"}
    assert how["pictures"] == {"base": 128, "edited": 88}
    assert sum(len(seeds) for _, seeds in camera.shots) == 128 + 88


def test_each_picture_is_made_once_in_batches_of_one_prompt(evaluated: Evaluate, camera: Camera) -> None:
    evaluated()
    wanted = [(prompt, SEEDS) for prompt in ("a cat", "a kitten", "a dog", "a bird", "a cat and a dog", "a dog house")]
    assert camera.shots == [*wanted, ("a tree", SEEDS), ("a tree", (0, 1)), *wanted]
    assert len(wanted) == COMPARED


@pytest.fixture
def remains(pipe: Any, state: Callable[[Any], Any]) -> Iterator[None]:
    """All that the pipeline is and has must be there again afterwards."""
    before, scheduler, config, attributes = state(pipe), pipe.scheduler, dict(pipe.config), set(vars(pipe))
    yield
    assert state(pipe) == before
    assert pipe.scheduler is scheduler
    assert dict(pipe.config) == config
    assert pipe.config["scheduler"][1] == type(scheduler).__name__
    assert efface.Editor.of(pipe) is None
    assert {name for name in vars(pipe) if not name.startswith("_")} <= attributes


@pytest.mark.usefixtures("remains")
def test_the_pipeline_ends_as_it_began(evaluated: Evaluate) -> None:
    found = evaluated("bend", controls=["noise", "blank"])
    changes = [row["cat"].fidelity_mae.value for row in (found.concepts, *found.controls.values())]
    assert len(set(changes)) == 3
    assert min(changes) > 0


@pytest.mark.usefixtures("remains", "camera")
def test_a_suite_that_draws_random_numbers_costs_the_caller_none(evaluated: Evaluate, suite: Any) -> None:
    def found(images: Any, concept: str) -> Any:
        return torch.rand(len(images))

    suite.found = found
    evaluated()


@pytest.mark.usefixtures("remains")
@pytest.mark.parametrize("last", [0, 3, COMPARED + 2, COMPARED + 4, 2 * COMPARED + 4, 3 * COMPARED + 3])
def test_it_ends_so_after_an_interruption_too(evaluated: Evaluate, camera: Camera, last: int) -> None:
    camera.last = last
    with pytest.raises(KeyboardInterrupt):
        evaluated("bend", controls=["noise", "blank"])


def test_an_interrupted_evaluation_goes_on_and_finds_the_same(
    evaluated: Evaluate, camera: Camera, tmp_path: Path
) -> None:
    whole = evaluated()
    every = camera.taken()
    camera.last = 9
    with pytest.raises(KeyboardInterrupt):
        evaluated(gallery=Gallery(tmp_path))
    camera.taken()
    camera.last = len(every)
    assert evaluated(gallery=Gallery(tmp_path)) == whole
    assert camera.taken() == every[9:]
    assert evaluated(gallery=Gallery(tmp_path)) == whole
    assert camera.taken() == []


def test_base_pictures_are_shared_and_edited_ones_are_not(evaluated: Evaluate, camera: Camera) -> None:
    gallery = Gallery()
    evaluated("tilt", gallery=gallery)
    camera.taken()
    stacks = ((["bend"], [1.0]), (["tilt"], [0.5]), (["tilt", "bend"], [1.0, 1.0]), (["bend", "tilt"], []))
    for names, scales in stacks:
        evaluated(*names, scales=scales, gallery=gallery)
        assert len(camera.taken()) == COMPARED
    evaluated("tilt", gallery=gallery, scales=[0.0])
    assert camera.taken() == [], "at scale 0 it is the base"


@pytest.mark.parametrize("change", ["steps", "guidance", "scheduler", "weight", "config", "libraries"])
def test_whatever_the_pictures_depend_on_makes_them_anew(
    evaluated: Evaluate, camera: Camera, pipe: Any, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    gallery = Gallery()
    evaluated(gallery=gallery)
    every = camera.taken()
    options: dict[str, Any] = {"allow_other_base": True}
    bias, scheduler, scaling = pipe.unet.conv_norm_out.bias, pipe.scheduler, pipe.vae.config.scaling_factor
    value = bias[0].item()
    if change in ("steps", "guidance"):
        options[change] = 3
    if change == "scheduler":
        vars(pipe)["scheduler"] = type(scheduler).from_config(scheduler.config, beta_end=0.013)
    if change == "weight":
        bias.data[0] += 1e-6
    if change == "config":
        pipe.vae.register_to_config(scaling_factor=0.2)
    if change == "libraries":
        monkeypatch.setattr("importlib.metadata.version", lambda name: "9.9")
    try:
        evaluated(gallery=gallery, **options)
    finally:
        vars(pipe)["scheduler"] = scheduler
        pipe.vae.register_to_config(scaling_factor=scaling)
        bias.data[0] = value
    assert camera.taken() == every


def test_another_source_of_the_method_makes_edited_pictures_anew(
    evaluated: Evaluate, camera: Camera, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = Gallery()
    evaluated(gallery=gallery)
    camera.taken()
    monkeypatch.setattr("efface.evaluation.stages.source_digest", lambda cls: "new")
    evaluated(gallery=gallery)
    assert len(camera.taken()) == COMPARED


def test_quick_takes_the_first_ten_seeds(evaluated: Evaluate, camera: Camera) -> None:
    found = evaluated(quick=True, seeds=range(7, 40))
    assert (found.quick, found.seeds) == (True, tuple(range(7, 17)))
    assert found.concepts["cat"].efficacy.n == 10
    seeds = {seed for _, seeds in camera.shots for seed in seeds}
    assert seeds == {*range(7, 17), *range(7), 17, 18, 19}, "and ten others for the anchor"


@pytest.mark.usefixtures("camera")
def test_progress_counts_pictures_up_to_the_last(evaluated: Evaluate) -> None:
    told: list[tuple[int, int, str]] = []
    evaluated(controls=["blank"], progress=lambda *said: told.append(said))
    total = 2 * (3 * COMPARED + 2)
    assert [done for done, _, _ in told] == list(range(0, total + 1, 2))
    assert {of for _, of, _ in told} == {total}
    assert [what for _, _, what in told if "dog house" in what] == [
        "base: a dog house",
        "edited: a dog house",
        "blank: a dog house",
    ]


@pytest.mark.usefixtures("camera")
def test_controls_are_rows_of_their_own(evaluated: Evaluate) -> None:
    found = evaluated(controls=["noise", "blank", "noise"])
    assert [(name, list(row)) for name, row in found.controls.items()] == [("noise", ["cat"]), ("blank", ["cat"])]
    assert found.sampling["pictures"].keys() == {"base", "edited", "noise", "blank"}


@pytest.mark.usefixtures("camera")
def test_several_erasures_are_judged_together(evaluated: Evaluate) -> None:
    found = evaluated("tilt", "team dog")
    assert list(found.concepts) == ["cat", "dog"]
    assert [one["label"] for one in found.erasures] == ["tilt-cat", "team-dog"]
    assert found.concepts["cat"].specificity_drop == found.concepts["dog"].specificity_drop


def test_a_suite_that_cannot_judge_says_so_after_one_batch(evaluated: Evaluate, camera: Camera, suite: Any) -> None:
    suite.found = lambda images, concept: [0.0]
    with pytest.raises(efface.PluginError, match="Suite 'words' answers found"):
        evaluated()
    assert len(camera.shots) == 1


@pytest.fixture
def nothing_made(camera: Camera) -> Iterator[None]:
    yield
    assert camera.shots == []


@pytest.mark.usefixtures("nothing_made")
class TestRefused:
    def test_a_suite_that_is_not_ready(self, evaluated: Evaluate, suite: Any) -> None:
        def missing() -> None:
            raise EffaceError("no network")

        suite.prepare = missing
        with pytest.raises(EffaceError, match="no network"):
            evaluated()

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"seeds": ()}, "An evaluation needs seeds"),
            ({"seeds": (1, 2, 1)}, "The seeds of an evaluation are different ones"),
            ({"steps": 1001}, "This model has 1000 timesteps"),
            ({"batch_size": 0}, "A batch has at least one picture, not 0"),
            ({"controls": ["nois"]}, "No control 'nois'; there are: blank, noise"),
            ({"scales": [1, 2]}, "2 scales for 1 erasures"),
        ],
    )
    def test_what_makes_no_sense(self, evaluated: Evaluate, options: dict[str, Any], said: str) -> None:
        with pytest.raises(EffaceError, match=said):
            evaluated(**options)

    def test_no_erasure(self, pipe: Any, registry: efface.Registry, suite: Any) -> None:
        with pytest.raises(EffaceError, match="Nothing is erased"):
            evaluate(pipe, model="tiny", registry=registry, suite=suite)

    def test_a_concept_that_the_suite_cannot_tell(self, evaluated: Evaluate, suite: Any) -> None:
        suite.concepts = lambda kind=None: type(suite).concepts(suite, kind)[1:]
        with pytest.raises(efface.BadConcept, match="No concept 'cat'; words can tell: bird, cubism, dog, tom"):
            evaluated()

    def test_a_pipeline_with_an_editor(
        self, evaluated: Evaluate, pipe: Any, registry: efface.Registry, erasures: Erasures
    ) -> None:
        with (
            efface.Editor(pipe, erasures["bend"], registry=registry) as editor,
            pytest.raises(efface.AlreadyEdited),
        ):
            evaluated()
        assert editor.entries == ()

    def test_an_erasure_of_another_base(self, evaluated: Evaluate, shared: Any) -> None:
        with pytest.raises(efface.WrongBase):
            evaluated(pipe=shared("sdxl"))

    def test_a_suite_that_does_not_accept_the_model(self, evaluated: Evaluate, suite: Any) -> None:
        suite.accepts = lambda model: False
        with pytest.raises(efface.UnknownSuite, match="Suite 'words' does not accept tiny: a few words"):
            evaluated()

    def test_a_model_that_no_suite_accepts(self, evaluated: Evaluate, suite: Any, toys: Any) -> None:
        suite.accepts = lambda model: False
        hooks = {"efface_suites": [suite], "efface_methods": list(toys.values())}
        plugin = SimpleNamespace(**{name: efface.hookimpl(_giving(items)) for name, items in hooks.items()})
        with pytest.raises(efface.UnknownSuite, match=r"No suite accepts tiny.*; installed: words \(a few words\)"):
            evaluated(suite=None, registry=efface.Registry([plugin]))
        with pytest.raises(efface.UnknownSuite, match="installed: none"):
            evaluated(suite=None, registry=efface.Registry([]))


def _giving(items: list[Any]) -> Any:
    return lambda: items


@pytest.mark.usefixtures("camera")
def test_the_first_suite_that_accepts_the_model_judges(evaluated: Evaluate, suite: Any, toys: Any) -> None:
    refuses = type(suite)()
    refuses.name, refuses.accepts = "all-refused", lambda model: False
    hooks = {"efface_suites": [suite, refuses], "efface_methods": list(toys.values())}
    plugin = SimpleNamespace(**{name: efface.hookimpl(_giving(items)) for name, items in hooks.items()})
    assert evaluated(suite=None, registry=efface.Registry([plugin])).suite["name"] == "words"


@pytest.mark.usefixtures("camera")
def test_what_a_suite_says_of_its_judge_is_reported(evaluated: Evaluate, suite: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(type(suite), "facts", {"threshold": 0.6})
    assert evaluated().suite["facts"] == {"threshold": 0.6}


def test_other_suites_are_named_where_none_accepts_the_model(evaluated: Evaluate, suite: Any, toys: Any) -> None:
    suite.only_by_name = True
    hooks = {"efface_suites": [suite], "efface_methods": list(toys.values())}
    plugin = SimpleNamespace(**{name: efface.hookimpl(_giving(items)) for name, items in hooks.items()})
    with pytest.raises(efface.UnknownSuite, match=r"words \(a few words\); used where they are named: words"):
        evaluated(suite=None, registry=efface.Registry([plugin]))


@pytest.mark.usefixtures("camera")
def test_other_weights_pass_when_allowed_and_it_shows(evaluated: Evaluate, pipe: Any) -> None:
    weight = pipe.unet.mid_block.attentions[0].transformer_blocks[0].attn2.to_k.weight
    before = weight.detach().clone()
    weight.data += 1
    try:
        with pytest.raises(efface.WrongBase):
            evaluated("bend")
        assert evaluated("bend", allow_other_base=True).erasures[0]["other_base"] is True
    finally:
        weight.data.copy_(before)
