"""From a concept to an erasure, with the pipeline left exactly as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from diffusers import DDPMScheduler
from torch import Tensor

import efface
from efface import (
    BadArtifact,
    BadConcept,
    BadEdit,
    BadSetting,
    Concept,
    Editor,
    Erasure,
    Fit,
    LowRank,
    PluginError,
    Registry,
    Request,
    UnknownMethod,
    erase,
)
from efface.errors import EffaceError
from efface.testing.pipelines import FAMILIES
from efface_hooks import Wiring

Erasures = Mapping[str, Erasure]


@dataclass(frozen=True)
class Probe:
    """A method whose parts a test supplies."""

    name: ClassVar[str] = "probe"
    fits: ClassVar[Callable[..., Any]] = staticmethod(lambda model, request, run: Fit({}))
    applies: ClassVar[Callable[..., None]] = staticmethod(lambda patch, fits: None)
    rate: float = efface.setting(0.5, min=0, max=1, help="how much")

    def fit(self, model: Any, request: Any, run: Any) -> Any:
        return type(self).fits(model, request, run)

    def apply(self, patch: Any, fits: Any) -> None:
        type(self).applies(patch, fits)


@pytest.fixture
def probe(monkeypatch: Any) -> Any:
    """Makes a probe with these parts."""

    def make(fit: Any, apply: Any = lambda patch, fits: None) -> Probe:
        monkeypatch.setattr(Probe, "fits", staticmethod(fit))
        monkeypatch.setattr(Probe, "applies", staticmethod(apply))
        return Probe()

    return make


def ones(model: Any, request: Any, run: Any) -> Fit:
    return Fit({"up": torch.ones(16, 1), "down": torch.ones(1, 16)})


def tilt(patch: Any, fits: Any) -> None:
    for fitted in fits:
        patch.map("unet.text", LowRank(fitted.fit.tensors["up"], fitted.fit.tensors["down"]))


def restless(model: Any, request: Any, run: Any) -> Fit:
    """Uses everything that a model offers, with no care for the state it leaves."""
    torch.manual_seed(7)
    for part in (model.unet, model.pipe.text_encoder, model.pipe.vae):
        part.train(not part.training)
    encoded = model.encode_phrases(["cat", "red dog"], ["a photo of {}"])
    noise = model.noise([1, 2])
    with model.record(model.points("skip"), lambda point, tensor, call: None):
        model.denoise(encoded, noise, steps=2)
    for weight in model.unet.parameters():
        weight.requires_grad_(False)
    weight = model.unet.conv_out.weight.requires_grad_(True)
    model.predict(noise, 3, encoded).square().sum().backward()
    assert weight.grad is not None
    torch.rand(5)
    return Fit({"up": encoded.at(encoded.subject).T.clone(), "down": weight.grad.flatten()[:32].view(2, 16).clone()})


# Nothing stays behind


@pytest.mark.parametrize("family", FAMILIES)
def test_a_fit_leaves_the_model_as_it_was(family: str, shared: Any, probe: Any, state: Any) -> None:
    pipe = shared(family)
    before, device, dtype = state(pipe), pipe.device, pipe.dtype
    width = pipe.unet.config.cross_attention_dim

    def fit(model: Any, request: Any, run: Any) -> Fit:
        restless(model, request, run)
        return Fit({"up": torch.ones(width, 1), "down": torch.ones(1, width)})

    erase(pipe, "cat", method=probe(fit, tilt))
    assert state(pipe) == before
    assert (pipe.device, pipe.dtype) == (device, dtype)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("where", ["fit", "apply"])
def test_a_fit_that_is_cut_short_leaves_the_model_as_it_was(
    error: type[BaseException], where: str, pipe: Any, probe: Any, state: Any
) -> None:
    def fit(model: Any, request: Any, run: Any) -> Fit:
        found = restless(model, request, run)
        if where == "fit":
            raise error("cut short")
        return found

    def apply(patch: Any, fits: Any) -> None:
        tilt(patch, fits)
        raise error("cut short")

    before = state(pipe)
    with pytest.raises(error, match="cut short"):
        erase(pipe, "cat", method=probe(fit, apply))
    assert state(pipe) == before


@pytest.mark.parametrize("training", [True, False])
def test_modes_and_gradients_that_were_set_before_are_set_after(
    training: bool, pipe: Any, probe: Any, state: Any
) -> None:
    weight = pipe.unet.conv_in.weight
    gradient = torch.ones_like(weight)
    try:
        pipe.unet.down_blocks[0].train(training)
        weight.grad = gradient
        pipe.unet.conv_in.bias.requires_grad_(False)
        before = state(pipe)
        erase(pipe, "cat", method=probe(restless, tilt))
        assert state(pipe) == before
        assert weight.grad is gradient
        assert torch.equal(gradient, torch.ones_like(weight))
    finally:
        pipe.unet.down_blocks[0].eval()
        weight.grad = None
        pipe.unet.conv_in.bias.requires_grad_(True)


# The base is what is fitted on


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_edits_are_off_during_a_fit_and_act_again_after_it(
    error: type[BaseException] | None,
    pipe: Any,
    probe: Any,
    registry: Registry,
    erasures: Erasures,
    hooks: Any,
    latents: Any,
) -> None:
    seen: list[Tensor] = []

    def fit(model: Any, request: Any, run: Any) -> Fit:
        assert hooks(pipe).total() == 0
        encoded = model.encode(["a cat"])
        seen.append(torch.cat([encoded.hidden.flatten(), model.predict(model.noise([0]), 1, encoded).flatten()]))
        if error is not None:
            raise error
        return ones(model, request, run)

    def erased() -> None:
        with pytest.raises(error) if error is not None else contextlib.nullcontext():
            erase(pipe, "cat", method=probe(fit, tilt))

    with Editor(pipe, erasures["word"], erasures["tilt"], erasures["fade"], registry=registry) as editor:
        wanted, wired = latents(pipe), hooks(pipe)
        erased()
        assert Editor.of(pipe) is editor
        assert hooks(pipe) == wired
        assert editor.verify() == []
        assert torch.equal(latents(pipe), wanted)
    erased()
    with_editor, without = seen
    assert torch.equal(with_editor, without)


def test_an_erasure_made_beside_others_equals_one_made_alone(pipe: Any, registry: Registry, erasures: Erasures) -> None:
    with Editor(pipe, erasures["tilt"], erasures["nudge"], registry=registry):
        beside = erase(pipe, "cat", anchor="tree", method="bend", registry=registry)
    assert beside == erasures["bend"]


def test_a_fused_pipeline_is_no_base(pipe: Any, registry: Registry, erasures: Erasures) -> None:
    with Editor(pipe, erasures["tilt"], registry=registry) as editor:
        editor.fuse()
        with pytest.raises(EffaceError, match=r"fused.*unfuse\(\)"):
            erase(pipe, "dog", method="tilt", registry=registry)
        editor.unfuse()
        erase(pipe, "dog", method="tilt", registry=registry)


# A seed decides


def test_one_seed_gives_one_erasure_whatever_the_global_generator_holds(pipe: Any, registry: Registry) -> None:
    def made(seed: int, world: int) -> Erasure:
        torch.manual_seed(world)
        return erase(pipe, "cat", anchor="dog", method="bend", seed=seed, registry=registry)

    assert made(3, world=0) == made(3, world=1)
    assert made(3, world=0) != made(4, world=0)
    assert made(4, world=0).header.seed == 4


def test_a_scheduler_that_draws_noise_makes_no_fit_random(pipe: Any, probe: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(pipe, "scheduler", DDPMScheduler.from_config(pipe.scheduler.config))

    def fit(model: Any, request: Any, run: Any) -> Fit:
        encoded = model.encode(["a cat", "a dog"])
        return Fit({"latents": model.denoise(encoded, model.noise([run.seed, 5]), steps=3)})

    def made(world: int) -> Tensor:
        torch.manual_seed(world)
        return erase(pipe, "cat", method=probe(fit)).tensors["latents"]

    assert torch.equal(made(0), made(1))


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, True, "1"])
def test_a_seed_that_is_none_is_refused_before_anything_is_computed(seed: Any, pipe: Any, probe: Any) -> None:
    with pytest.raises(BadSetting, match="seed"):
        erase(pipe, "cat", method=probe(never), seed=seed)


# What is asked for is written down


def test_a_missing_anchor_becomes_nothing_special_and_is_reported(pipe: Any, registry: Registry) -> None:
    erasure = erase(pipe, ["cat", Concept("dog", "tree"), Concept("red car")], method="tilt", registry=registry)
    assert [concept.anchor for concept in erasure.concepts] == ["", "tree", ""]
    assert erasure.header.report["neutral anchor"] == ["cat", "red car"]
    assert erasure.header.report["strength"] == 1.0


def test_a_given_anchor_even_an_empty_one_is_not_reported_as_chosen(pipe: Any, registry: Registry) -> None:
    for anchor in ("dog", ""):
        erasure = erase(pipe, "cat", anchor=anchor, method="tilt", registry=registry)
        assert erasure.concepts[0].anchor == anchor
        assert "neutral anchor" not in erasure.header.report


def test_a_model_that_a_plugin_brought_has_its_own_neutral_anchor(
    pipe: Any, tmp_path: Path, probe: Any, monkeypatch: Any
) -> None:
    home = tmp_path / "plain"
    pipe.save_pretrained(home)

    class Plugin:
        @efface.hookimpl
        def efface_models(self) -> list[efface.NamedModel]:
            return [efface.NamedModel("plain", "a model", lambda: home, "a picture")]

    registry = Registry([Plugin()])
    monkeypatch.chdir(tmp_path)
    for name in ("plain", home, f"{home}/", "./plain"):
        loaded = efface.load(name, registry=registry)
        erasure = erase(loaded, "cat", method=probe(ones, tilt), registry=registry)
        assert erasure.concepts[0].anchor == "a picture", name
    assert erasure.header.report == {"neutral anchor": ["cat"]}
    assert erase(pipe, "cat", method=probe(ones, tilt), registry=registry).concepts[0].anchor == ""


def test_a_model_whose_folder_is_costly_to_find_is_not_looked_for_without_need(pipe: Any, probe: Any) -> None:
    def path() -> Path:
        raise OSError("not here")

    class Plugin:
        @efface.hookimpl
        def efface_models(self) -> list[efface.NamedModel]:
            return [efface.NamedModel("far", "a model", path, "a picture")]

    erase(pipe, "cat", anchor="dog", method=probe(ones, tilt), registry=Registry([Plugin()]))


def test_texts_synonyms_kept_prompts_and_templates_reach_method_and_header(pipe: Any, probe: Any) -> None:
    asked: list[Request] = []

    def fit(model: Any, request: Request, run: Any) -> Fit:
        asked.append(request)
        return ones(model, request, run)

    erasure = erase(
        pipe,
        "van gogh",
        method=probe(fit, tilt),
        anchor="painting",
        synonyms=["vincent"],
        kind="style",
        keep=["a dog"],
        templates=["{}", "a photo by {}"],
    )
    wanted = Request((Concept("van gogh", "painting", ("vincent",), "style"),), ("a dog",), ("{}", "a photo by {}"))
    assert asked == [wanted]
    assert erasure.request == wanted


def test_one_anchor_serves_all_concepts_given_as_text(pipe: Any, registry: Registry) -> None:
    erasure = erase(pipe, ["cat", "dog"], anchor="tree", method="tilt", registry=registry)
    assert [(concept.text, concept.anchor) for concept in erasure.concepts] == [("cat", "tree"), ("dog", "tree")]


def test_the_header_says_where_and_on_what_the_erasure_acts(pipe: Any, erasures: Erasures, toys: Any) -> None:
    header = erasures["nudge"].header
    assert header.points == (toys["nudge"].VALUE, toys["nudge"].CONVOLUTION)
    assert header.base["pipeline"] == "StableDiffusionPipeline"
    assert header.base["dtype"] == "float32"
    assert (header.method, header.distribution, header.version) == ("nudge", "", "")


def test_settings_and_presets_reach_the_method_and_the_header(pipe: Any, registry: Registry) -> None:
    def strength(**options: Any) -> tuple[Any, Any]:
        made = erase(pipe, "cat", method="tilt", registry=registry, **options).header
        return made.settings["strength"], made.report["strength"]

    assert strength() == (1.0, 1.0)
    assert strength(preset="strong") == (2.0, 2.0)
    assert strength(settings={"strength": "3"}) == (3.0, 3.0)
    assert strength(preset="strong", settings={"strength": 0.5}) == (0.5, 0.5)


def test_an_instance_brings_its_own_settings(pipe: Any, registry: Registry, toys: Any) -> None:
    assert erase(pipe, "cat", method=toys["tilt"](4.0), registry=registry).header.settings == {"strength": 4.0}


def test_progress_and_folder_reach_the_fit(pipe: Any, probe: Any, tmp_path: Path) -> None:
    heard: list[tuple[int, int, str]] = []

    def fit(model: Any, request: Any, run: Any) -> Fit:
        run.progress(1, 2, "half")
        assert run.folder == tmp_path
        return ones(model, request, run)

    erase(
        pipe,
        "cat",
        method=probe(fit, tilt),
        folder=tmp_path,
        progress=lambda done, total, what: heard.append((done, total, what)),
    )
    assert heard == [(1, 2, "half")]


# What is refused, before anything is computed


def never(model: Any, request: Any, run: Any) -> Fit:
    raise AssertionError("fit was called")


@pytest.fixture
def untouched(pipe: Any, state: Any) -> Iterator[None]:
    before = state(pipe)
    yield
    assert state(pipe) == before


@pytest.mark.usefixtures("untouched")
def test_a_concept_the_tokenizer_has_no_tokens_for_is_refused(pipe: Any, probe: Any) -> None:
    for text in ("\u732b", "caf\u00e9 \u200b", "<|endoftext|>"):
        with pytest.raises(BadConcept, match="has characters that are no tokens"):
            erase(pipe, text, method=probe(never))
    with pytest.raises(BadConcept, match="has characters that are no tokens"):
        erase(pipe, "cat", anchor="\u732b", method=probe(never))
    with pytest.raises(BadConcept, match="has characters that are no tokens"):
        erase(pipe, "cat", synonyms=["\u732b"], method=probe(never))


@pytest.mark.usefixtures("untouched")
def test_a_concept_that_tokenizes_to_nothing_is_refused(pipe: Any, probe: Any, monkeypatch: Any) -> None:
    tokenizer = pipe.tokenizer

    class Deaf:
        """A tokenizer that drops what it does not know, as some do."""

        def __call__(self, text: Any, **options: Any) -> Any:
            drop = lambda one: one.replace("\u732b", "")  # noqa: E731
            return tokenizer(drop(text) if isinstance(text, str) else list(map(drop, text)), **options)

        def __getattr__(self, name: str) -> Any:
            return getattr(tokenizer, name)

    monkeypatch.setattr(pipe, "tokenizer", Deaf())
    monkeypatch.setattr(pipe, "encode_prompt", lambda prompts, **options: (torch.zeros(len(prompts), 16, 16), None))
    with pytest.raises(BadConcept, match="'\u732b' tokenizes to nothing"):
        erase(pipe, "\u732b", method=probe(never))


@pytest.mark.usefixtures("untouched")
def test_a_concept_that_is_too_long_is_refused(pipe: Any, probe: Any) -> None:
    fits, too_long = "abcdefghijklmn", "abcdefghijklmno"
    erase(pipe, fits, method=probe(ones, tilt))
    for text, options in (
        (too_long, {}),
        ("cat", {"anchor": too_long}),
        ("cat", {"synonyms": [too_long]}),
        (fits, {"templates": ["{}", "a {}"]}),
    ):
        with pytest.raises(BadConcept, match="longer than the 16 tokens of this model"):
            erase(pipe, text, method=probe(never), **options)


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("concept", "options", "message"),
    [
        ("cat", {"anchor": " CAT"}, "has itself as anchor"),
        ("cat", {"synonyms": ["kitten"], "anchor": "kitten"}, "has itself as anchor"),
        ("cat", {"keep": ["cat"]}, "erases 'cat' and keeps it"),
        (["cat", "cat"], {}, "twice"),
        ([], {}, "at least one concept"),
        ("", {}, "must not be empty"),
        ([3], {}, "must hold Concept objects"),
        ("cat", {"templates": ["photo"]}, "exactly once"),
        ("cat", {"kind": "animal"}, "kinds: object, style"),
        (["cat", "dog"], {"synonyms": ["kitten"]}, "give each as a Concept"),
        (Concept("cat"), {"synonyms": ["kitten"]}, "give each as a Concept"),
        (Concept("cat"), {"anchor": "dog"}, "a Concept has its own"),
        ([Concept("cat")], {"kind": "style"}, "a Concept has its own"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(
    concept: Any, options: Any, message: str, pipe: Any, probe: Any
) -> None:
    with pytest.raises(BadConcept, match=message):
        erase(pipe, concept, method=probe(never), **options)


@pytest.mark.usefixtures("untouched")
def test_unknown_names_are_refused_with_the_ones_there_are(pipe: Any, registry: Registry) -> None:
    with pytest.raises(UnknownMethod, match=r"No method 'tlit'; installed: bend, fade, .*Did you mean 'tilt'"):
        erase(pipe, "cat", method="tlit", registry=registry)
    with pytest.raises(BadSetting, match=r"tilt: No setting 'strenght'; it has: strength\. Did you mean 'strength'"):
        erase(pipe, "cat", method="tilt", settings={"strenght": 1}, registry=registry)
    with pytest.raises(BadSetting, match=r"'strength' of tilt must be at least 0, not -1"):
        erase(pipe, "cat", method="tilt", settings={"strength": -1}, registry=registry)
    with pytest.raises(BadSetting, match=r"tilt: No preset 'weak'; it has: strong"):
        erase(pipe, "cat", method="tilt", preset="weak", registry=registry)


@pytest.mark.usefixtures("untouched")
def test_settings_beside_an_instance_are_refused_not_ignored(pipe: Any, toys: Any) -> None:
    with pytest.raises(BadSetting, match=r"Tilt\(strength=2.0\) has its settings already"):
        erase(pipe, "cat", method=toys["tilt"](2.0), settings={"strength": 3})
    with pytest.raises(BadSetting, match="has its settings already"):
        erase(pipe, "cat", method=toys["tilt"](2.0), preset="strong")


@pytest.mark.usefixtures("untouched")
def test_an_instance_that_is_no_method_is_refused(pipe: Any) -> None:
    with pytest.raises(PluginError, match="frozen dataclass"):
        erase(pipe, "cat", method=SimpleNamespace(fit=never))  # type: ignore[arg-type]


def test_a_pipeline_without_a_unet_is_refused(probe: Any) -> None:
    with pytest.raises(efface.UnsupportedPipeline, match="SimpleNamespace has no unet"):
        erase(SimpleNamespace(), "cat", method=probe(never))


# What a method returns is checked


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(value: float, pipe: Any, probe: Any) -> None:
    def fit(model: Any, request: Any, run: Any) -> Fit:
        return Fit({"up": torch.full((16, 1), value), "down": torch.ones(1, 16)})

    with pytest.raises(BadEdit, match=r"unet\.text has entries that are not finite"):
        erase(pipe, "cat", method=probe(fit, tilt))
    with pytest.raises(BadArtifact, match=r"Method 'probe' made no sound erasure: tensor 'up'.*not finite"):
        erase(pipe, "cat", method=probe(fit))


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("fit", "apply", "error", "message"),
    [
        (lambda *_: None, tilt, PluginError, "Method 'probe' must return an efface.Fit from fit, not None"),
        (lambda *_: {"up": 1}, tilt, PluginError, "must return an efface.Fit"),
        (
            lambda *_: Fit({"up": torch.ones(8, 1), "down": torch.ones(1, 16)}),
            tilt,
            BadEdit,
            r"unet\.text takes a change of shape \(16, 16\), not \(8, 16\)",
        ),
        (ones, lambda patch, fits: patch.output("unet.nowhere", len), efface.UnknownPoint, "No hook point"),
        (ones, lambda patch, fits: patch.map("unet.mid", len), BadEdit, "takes"),
        (lambda *_: Fit({"up": [1.0]}), lambda patch, fits: None, PluginError, "'up' as a tensor"),
        (lambda *_: Fit({}, {"step": object()}), lambda patch, fits: None, BadArtifact, "facts.step"),
        (lambda *_: Fit({}, {}, {"loss": float("nan")}), lambda patch, fits: None, BadArtifact, "report.loss"),
        (lambda *_: Fit({"a b": torch.ones(1)}), lambda patch, fits: None, BadArtifact, "a plain name"),
        (lambda *_: Fit({"up": torch.ones(1, dtype=torch.complex64)}), lambda *_: None, BadArtifact, "dtypes"),
    ],
)
def test_what_cannot_be_used_is_refused_and_named(
    fit: Any, apply: Any, error: type[Exception], message: str, pipe: Any, probe: Any
) -> None:
    with pytest.raises(error, match=message):
        erase(pipe, Concept("cat", "dog"), method=probe(fit, apply))


def test_nothing_is_on_the_pipeline_after_erase(pipe: Any, registry: Registry) -> None:
    erase(pipe, "cat", method="fade", registry=registry)
    assert Editor.of(pipe) is None
    assert Wiring.of(pipe) is None
