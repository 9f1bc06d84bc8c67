"""What a demonstration chooses by itself: what to erase and to show, what there is time for, and the figures."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

import efface
from efface.concept import Concept, Request
from efface.errors import BadConcept
from efface.evaluation.gallery import Gallery
from efface.evaluation.scores import Estimate, Evaluation, Scores
from efface.method import Progress
from efface.report import drawing, overview
from efface.report.budget import Budget
from efface.report.demonstrating import demonstrate
from efface.report.demonstration import Demonstration, Failure, Outcome, Skipped
from efface.report.example import Wish, prompts
from efface.report.figure import TABLE
from efface.report.illustration import Illustration, Showing
from efface.report.measuring import Measuring, unmeasured
from efface.report.page import page
from efface.report.prompt import Prompt
from efface.report.sampling import Sampling
from efface.report.shipped import Search, Shipped
from efface.report.table import rows
from efface.testing.pipelines import tiny_pipeline

ONE = Sampling((Prompt("a cat", "concept"), Prompt("a dog", "control")), (0,), steps=1)
CAT = Request((Concept("cat", "fish"),), ("a bird",))


class Words(efface.Suite):
    """Knows a few words of the tiny tokenizer, and has an opinion that any other byte would change."""

    name = "words"
    summary = "a few words"
    digest = "1"
    guidance = 2.0

    @property
    def example(self) -> Request:
        keep = ("a bird", "a red Kitten", "a house", "a catbird", "a house in cubist style", "a tom cat")
        return Request((Concept("cat", "fish"),), keep, ("a {}", "a picture of a {}"))

    def accepts(self, model: efface.Model) -> bool:
        return True

    def concepts(self, kind: Any = None) -> Sequence[efface.SuiteConcept]:
        every = (
            efface.SuiteConcept("cat", held_out=("kitten", "tabby"), neighbours=("fish", "dog")),
            efface.SuiteConcept("dog", synonyms=("puppy",), neighbours=("cat",)),
            efface.SuiteConcept("fish"),
            efface.SuiteConcept("cubist", kind="style", neighbours=("gothic",)),
            efface.SuiteConcept("gothic", kind="style"),
        )
        return [one for one in every if kind in (None, one.kind)]

    def templates(self, kind: Any) -> Sequence[str]:
        return {"object": ("a {}", "a red {}"), "style": ("a house in {} style",)}[kind]

    def scenes(self, concept: str) -> Sequence[efface.Scene]:
        others = ("fish", "bird", "tree") if concept == "cat" else ()
        return [efface.Scene(f"a {concept} and a {other}", other) for other in others]

    def unrelated(self, concept: str) -> Sequence[str]:
        return ("a blue fish", "a bird house", "a car")

    def found(self, images: Sequence[Image.Image], concept: str) -> Any:
        digests = [hashlib.sha256(image.tobytes() + concept.encode()).digest() for image in images]
        return np.array([digest[0] / 255 for digest in digests])


SUITE = Words()


def shown(text: str, anchor: str | None = None, *synonyms: str) -> list[tuple[str, str | None]]:
    return [(one.text, one.role) for one in prompts(SUITE, Request((Concept(text, anchor, synonyms),)))]


# What is erased and shown where nobody says


def test_nothing_asked_is_the_example_of_the_suite() -> None:
    keep = ("a bird", "a house", "a catbird", "a house in cubist style")
    assert Wish().request(SUITE) == replace(SUITE.example, keep=keep)


def test_what_is_asked_goes_before_the_example() -> None:
    wish = Wish(anchor="dog", synonyms=("kitten",), keep=("a car",), templates=("the {}",))
    assert wish.request(SUITE) == Request((Concept("cat", "dog", ("kitten",)),), ("a car",), ("the {}",))
    assert Wish(anchor="").request(SUITE).concepts[0].anchor == ""


def test_another_concept_has_no_anchor_of_its_own_and_the_example_s_is_kept() -> None:
    asked = Wish("Bird").request(SUITE)
    assert asked == Request((Concept("Bird"),))
    dog = Wish("dog").request(SUITE)
    assert (dog.concepts, dog.templates) == ((Concept("dog"),), SUITE.example.templates)
    assert dog.keep == (SUITE.example.prompts("cat")[0], *SUITE.example.keep)


def test_a_style_has_its_kind_and_its_templates() -> None:
    asked = Wish("cubist").request(SUITE)
    assert asked.concepts == (Concept("cubist", kind="style"),)
    assert asked.templates == ("a house in {} style",)
    assert "a house in cubist style" not in asked.keep


def test_without_a_suite_somebody_has_to_say_what_to_erase() -> None:
    assert Wish("cat", "dog", kind="person").request(None) == Request((Concept("cat", "dog", kind="person"),))
    with pytest.raises(BadConcept, match="--concept"):
        Wish().request(None)


def test_the_suite_says_what_to_show() -> None:
    assert shown("cat", "fish") == [
        ("a cat", "concept"),
        ("a kitten", "synonym"),
        ("a dog", "neighbour"),
        ("a cat and a bird", "scene"),
        ("a car", "control"),
    ]


def test_words_that_are_erased_are_not_held_out() -> None:
    assert shown("cat", None, "kitten")[1] == ("a tabby", "synonym")


def test_a_suite_that_has_less_shows_less() -> None:
    assert shown("cubist") == [
        ("a house in cubist style", "concept"),
        ("a house in gothic style", "neighbour"),
        ("a blue fish", "control"),
    ]


def test_without_a_suite_a_picture_of_the_concept_is_shown() -> None:
    for suite, text in ((None, "cat"), (SUITE, "skull")):
        assert prompts(suite, Request((Concept(text),))) == (Prompt(f"a picture of {text}", "concept"),)
    style = Request((Concept("cubist", kind="style"),))
    assert prompts(None, style) == (Prompt("a picture in the style of cubist", "concept"),)


def test_why_there_are_no_figures() -> None:
    assert unmeasured(SUITE, Concept("cat")) == ""
    assert "the suite words cannot tell “skull” in a picture; it can tell: cat, dog" in unmeasured(
        SUITE, Concept("skull")
    )
    assert "no installed suite accepts this model" in unmeasured(None, Concept("cat"))


# What there is time for


def test_a_fit_may_take_what_pictures_and_figures_leave() -> None:
    budget = Budget(600)
    assert budget.left(spent=100, showing=50, waiting=4) == 300
    assert budget.left(spent=500, showing=50, waiting=4) == 0


@pytest.mark.parametrize(
    ("cost", "left", "refit", "allowed"),
    [
        (300, 300, False, True),
        (301, 300, False, False),
        (0, 0, False, True),
        (10, 0, False, True),
        (11, 0, False, False),
        (1e6, 0, True, True),
    ],
)
def test_a_fit_has_to_be_within_what_is_left_or_be_a_trifle(
    cost: float, left: float, refit: bool, allowed: bool
) -> None:
    assert Budget(600, refit).allows(cost, left) == allowed


@dataclass(frozen=True)
class Slow:
    """Takes its time."""

    name: ClassVar[str] = "slow"
    cost_hint: ClassVar[float] = 1e6
    size: float = efface.setting(0.5, min=0, help="how much")

    def fit(self, model: efface.Model, request: efface.Request, run: efface.Run) -> efface.Fit:
        import torch

        up, down = torch.randn(2, 16, generator=run.generator(stream=request.concepts[0].text))
        return efface.Fit({"up": up[:, None] * self.size, "down": down[None]})

    def apply(self, patch: efface.Patch, fits: Sequence[efface.Fitted]) -> None:
        for fitted in fits:
            patch.map("unet.text", efface.LowRank(fitted.fit.tensors["up"], fitted.fit.tensors["down"]))


@dataclass(frozen=True)
class Quick(Slow):
    """Takes no time."""

    name: ClassVar[str] = "quick"
    cost_hint: ClassVar[float] = 0.0


@dataclass(frozen=True)
class Other(Quick):
    """Takes no time either."""

    name: ClassVar[str] = "other"
    size: float = efface.setting(9.0, min=0, help="how much")


@dataclass(frozen=True)
class Reads(Quick):
    """Takes words from the tokenizer."""

    name: ClassVar[str] = "reads"
    exclude: tuple[str, ...] = efface.setting((), help="words not to take")


@dataclass(frozen=True)
class Draws(Quick):
    """Draws what it did."""

    name: ClassVar[str] = "draws"

    def illustrate(self, erasure: efface.Erasure, showing: Showing) -> Sequence[Illustration]:
        return [Illustration(f"what {erasure.concepts[0].text} was & is", showing.base[0].resize((500, 300)))]


@dataclass(frozen=True)
class Breaks(Quick):
    """Breaks down in its fit."""

    name: ClassVar[str] = "breaks"

    def fit(self, model: efface.Model, request: efface.Request, run: efface.Run) -> efface.Fit:
        raise RuntimeError("a singular matrix")


def registry_of(folder: Path | None = None, *methods: type) -> efface.Registry:
    class Plugin:
        @efface.hookimpl
        def efface_methods(self) -> list[type]:
            return list(methods or (Slow,))

        @efface.hookimpl
        def efface_models(self) -> list[efface.NamedModel]:
            return [efface.NamedModel("tiny", "", lambda: Path(), "a picture", folder and (lambda: folder))]

    return efface.Registry([Plugin()])


@pytest.fixture(scope="module")
def tiny() -> Any:
    return tiny_pipeline("sd1")


@pytest.fixture(scope="module")
def show(tiny: Any) -> Callable[..., Demonstration]:
    """Demonstrations on one tiny pipeline, that is known as a model of the plugin."""

    def demonstrated(registry: efface.Registry, *methods: str, **options: Any) -> Demonstration:
        return demonstrate(
            tiny, **{"request": CAT, "sampling": ONE, "methods": methods, "model": "tiny"} | options, registry=registry
        )

    return demonstrated


@pytest.fixture
def ship(tmp_path: Path, tiny: Any) -> Callable[..., Path]:
    """Writes a fitted file of the slow method; the folder that it is in."""

    def shipped(pipe: Any = tiny, name: str = "slow-cat", **options: Any) -> Path:
        options = {"method": Slow(), "anchor": "fish", "keep": ["a bird"]} | options
        efface.erase(pipe, "cat", registry=registry_of(), **options).save(tmp_path / f"{name}.safetensors")
        return tmp_path

    return shipped


def the(found: Demonstration) -> Any:
    (result,) = found.results
    return result


def test_what_takes_too_long_is_not_run_and_says_so(show: Callable[..., Demonstration]) -> None:
    result = the(show(registry_of(), budget=Budget(1e5)))
    assert isinstance(result, Skipped)
    assert result.why.startswith("fitting takes about 278 h, 28 h of the budget left; --refit or a larger --budget")
    assert "no fitted file of it comes with the model" in result.why


def test_held_out_words_stay_out_of_a_fit_that_draws_words(show: Callable[..., Demonstration]) -> None:
    found = show(registry_of(None, Quick, Reads), suite=Words())
    assert {result.method: result.settings.get("exclude") for result in found.results} == {
        "quick": None,
        "reads": ["kitten", "tabby"],
    }


def test_what_a_method_draws_is_on_the_page_at_its_size(show: Callable[..., Demonstration]) -> None:
    found = show(registry_of(None, Quick, Draws))
    assert [len(outcome.illustrations) for outcome in found.outcomes] == [1, 0]
    assert ["illustrations" in outcome.seconds for outcome in found.outcomes] == [True, False]
    text = page(found)
    assert text.count("<figure>") == 1
    assert 'width="500" height="300" alt="what cat was &amp; is"' in text


@dataclass(frozen=True)
class Endless:
    """Figures that take more pictures than anyone has time for."""

    pictures: int = 10**12

    def __call__(self, pipe: Any, erasure: efface.Erasure, progress: Progress) -> Evaluation:
        raise AssertionError("nothing was to be measured")


def test_the_time_that_figures_take_is_not_left_for_a_fit(show: Callable[..., Demonstration]) -> None:
    result = the(show(registry_of(), budget=Budget(1e5), measure=Endless()))
    assert result.why.startswith("fitting takes about 278 h, 0 s of the budget left")


def test_a_method_that_is_not_run_is_no_failure(show: Callable[..., Demonstration]) -> None:
    found = show(registry_of(None, Quick, Slow))
    assert found.sound
    assert [type(result) for result in found.results] == [Outcome, Skipped]
    assert found.to_json()["methods"][1]["not_run"].startswith("fitting takes about 278 h")


def test_what_is_asked_for_with_refit_is_fitted(show: Callable[..., Demonstration], ship: Callable[..., Path]) -> None:
    result = the(show(registry_of(ship()), budget=Budget(0, refit=True)))
    assert "fit" in result.seconds
    assert result.file == ""


def test_what_there_is_time_for_is_fitted_although_a_file_is_there(
    show: Callable[..., Demonstration], ship: Callable[..., Path]
) -> None:
    assert the(show(registry_of(ship()), budget=Budget(1e9))).file == ""


def test_a_fitted_file_stands_in_for_a_fit(
    show: Callable[..., Demonstration], ship: Callable[..., Path], tiny: Any
) -> None:
    registry = registry_of(ship())
    result = the(show(registry))
    assert (result.file, result.why.partition(",")[0]) == ("slow-cat.safetensors", "fitting takes about 278 h")
    assert "fit" not in result.seconds
    fitted = efface.erase(tiny, "cat", method=Slow(), anchor="fish", keep=["a bird"], registry=registry)
    assert result.sha256 == fitted.digest


def test_the_neutral_anchor_is_part_of_the_request(
    show: Callable[..., Demonstration], ship: Callable[..., Path]
) -> None:
    folder = ship(anchor=None, keep=[])
    assert the(show(registry_of(folder), request=Request((Concept("cat"),)))).file == "slow-cat.safetensors"


@pytest.fixture
def search(tiny: Any) -> Callable[[Path], Search]:
    """Looks in a folder for what the demonstrations here ask for."""
    return lambda folder: Shipped(tiny, registry_of(), folder).find("slow", CAT, {})


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"method": Slow(0.25)}, "other settings (size)"),
        ({"anchor": "dog"}, "another request"),
        ({"keep": []}, "another request"),
        ({"pipe": tiny_pipeline("sd1", seed=1)}, "another base model"),
        ({"pipe": tiny_pipeline("sd1", seed=1), "anchor": "dog"}, "another request, another base model"),
    ],
)
def test_a_file_that_does_not_fit_is_not_used_and_says_what_differs(
    search: Callable[[Path], Search], ship: Callable[..., Path], options: Mapping[str, Any], difference: str
) -> None:
    found = search(ship(**options))
    assert found == Search(None, f"slow-cat.safetensors comes with the model, but for {difference}")


def test_the_page_says_why_a_file_is_not_used(show: Callable[..., Demonstration], ship: Callable[..., Path]) -> None:
    found = show(registry_of(ship(method=Slow(0.25))))
    assert "(slow-cat.safetensors comes with the model, but for other settings (size))" in page(found)


def test_a_file_of_another_version_of_the_plugin_is_not_used(
    search: Callable[[Path], Search], ship: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ship()
    monkeypatch.setattr(efface.Registry, "origin", lambda *_: ("efface-slow", "2.0"))
    assert search(folder).file  # this file does not say who made it
    monkeypatch.setattr(efface.Registry, "origin", lambda *_: ("efface-slow", "1.0"))
    ship()
    assert search(folder).file
    monkeypatch.setattr(efface.Registry, "origin", lambda *_: ("efface-slow", "2.0"))
    assert search(folder).why.endswith("but for another plugin (efface-slow 1.0, installed is efface-slow 2.0)")


def test_of_several_files_the_fitting_one_is_used_and_the_nearest_is_named(
    search: Callable[[Path], Search], ship: Callable[..., Path]
) -> None:
    ship(name="a-far", method=Slow(0.25), anchor="dog")
    folder = ship(name="b-near", method=Slow(0.25))
    (folder / "c-damaged.safetensors").write_bytes(b"nothing")
    assert search(folder).why.startswith("b-near.safetensors comes with the model")
    ship(name="d-right")
    right = search(folder).file
    assert right
    assert right.name == "d-right.safetensors"


def test_a_damaged_file_is_named(search: Callable[[Path], Search], tmp_path: Path) -> None:
    (tmp_path / "slow.safetensors").write_bytes(b"nothing")
    assert search(tmp_path) == Search(None, "no fitted file of it comes with the model; damaged: slow.safetensors")


def test_the_quickest_is_run_first_and_shown_in_its_place(
    show: Callable[..., Demonstration], monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    monkeypatch.setattr(Slow, "fit", lambda self, *_: order.append(self.name) or efface.Fit({}))
    monkeypatch.setattr(Slow, "apply", lambda *_: None)
    found = show(registry_of(None, Slow, Quick), "slow", "quick", budget=Budget(refit=True))
    assert order == ["quick", "slow"]
    assert [result.method for result in found.results] == ["slow", "quick"]


def test_a_fit_that_fails_costs_the_others_nothing(show: Callable[..., Demonstration]) -> None:
    found = show(registry_of(None, Breaks, Quick))
    assert isinstance(found.results[0], Failure)
    assert isinstance(found.results[1], Outcome)


# Figures


class Few(Words):
    """Knows cats and dogs."""

    def concepts(self, kind: Any = None) -> Sequence[efface.SuiteConcept]:
        return [one for one in super().concepts(kind) if one.text in ("cat", "dog")]

    def templates(self, kind: Any) -> Sequence[str]:
        return ("a {}",)

    def scenes(self, concept: str) -> Sequence[efface.Scene]:
        return ()

    def unrelated(self, concept: str) -> Sequence[str]:
        return ("a car",)


class Watched(Gallery):
    """Notes what was made for it: what was on the pipeline, the prompt and the seeds."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[str] = []

    def keep(self, facts: Mapping[str, Any], images: Sequence[Image.Image]) -> Any:
        self.made.append(f"{facts['stage']} {facts['prompt']} {facts['seeds']}")
        return super().keep(facts, images)


@pytest.fixture(scope="module")
def measuring() -> Measuring:
    return Measuring(
        Few(), CAT, "tiny", registry_of(None, Quick, Breaks, Other), guidance=7.5, steps=3, gallery=Watched()
    )


@pytest.fixture(scope="module")
def found(tiny: Any, measuring: Measuring) -> Demonstration:
    """Two methods that were measured and, between them, one that failed."""
    names = ("quick", "breaks", "other")
    return demonstrate(tiny, CAT, ONE, names, model="tiny", registry=measuring.registry, measure=measuring)


def test_the_pictures_of_the_base_are_made_once(found: Demonstration, measuring: Measuring) -> None:
    made = measuring.gallery.made
    base = [one for one in made if one.startswith("[] ")]
    assert base
    assert len(base) == len(set(base))
    assert sum("a cat [0, 1, 2, 3, 4, 5, 6, 7]" in one for one in made) == 3


def test_the_figures_are_those_of_a_quick_evaluation(found: Demonstration) -> None:
    quick = found.outcomes[0]
    assert quick.evaluation is not None
    assert quick.evaluation.quick
    assert quick.evaluation.controls == {}
    assert quick.evaluation.sampling["pictures"]["edited"] == found.measured
    facts = found.to_json()
    assert facts["figures"]["suite"]["name"] == "words"
    assert facts["methods"][0]["figures"] == quick.evaluation.concepts["cat"].to_json()
    assert "figures" in quick.seconds


def test_the_figures_come_out_the_same_again(found: Demonstration, tiny: Any, measuring: Measuring) -> None:
    erasure = efface.erase(tiny, "cat", anchor="fish", keep=["a bird"], method=Quick(), registry=measuring.registry)
    again = replace(measuring, gallery=Gallery())(tiny, erasure, lambda *_: None)
    assert again == found.outcomes[0].evaluation
    assert again.concepts != found.outcomes[1].evaluation.concepts


def test_the_page_has_a_row_for_the_base_and_one_for_every_method(found: Demonstration) -> None:
    base, quick, breaks, other = rows(found)
    assert [row.name for row in (base, quick, breaks, other)] == ["before", "quick", "breaks", "other"]
    assert len(base.cells) == len(quick.cells) == len(other.cells) == len(TABLE)
    assert breaks.said == "Failed during fit. RuntimeError: a singular matrix"
    text = page(found)
    assert "A quick evaluation by the suite words" in text
    assert f"{found.measured} pictures" in text


def estimate(value: float, low: float = 0.0, high: float = 1.0) -> Estimate:
    return Estimate(value, low, high, 40)


def with_scores(found: Demonstration, scores: Scores) -> Demonstration:
    """The same demonstration, had the evaluation found this."""
    outcome = found.outcomes[0]
    assert isinstance(outcome.evaluation, Evaluation)
    return replace(found, results=(replace(outcome, evaluation=replace(outcome.evaluation, concepts={"cat": scores})),))


def cells(found: Demonstration, figure: str) -> list[tuple[str, tuple[str, ...]]]:
    position = [one.name for one in TABLE].index(figure)
    return [(row.cells[position].value, row.cells[position].small) for row in rows(found)]


def test_a_rate_is_shown_as_a_share_with_its_interval_after_that_of_the_base(found: Demonstration) -> None:
    scores = Scores(efficacy=estimate(0.05, 0.014, 0.163), efficacy_base=estimate(0.975, 0.871, 0.996))
    assert cells(with_scores(found, scores), "efficacy") == [
        ("98 %", ("87 to 100 %", "n 40")),
        ("5 %", ("1 to 16 %", "n 40")),
    ]


def test_a_change_of_the_base_is_zero_by_definition(found: Demonstration) -> None:
    scores = Scores(fidelity_mae=estimate(0.0337, 0.03, 0.04), specificity_drop=estimate(-0.021, -0.1, 0.004))
    assert cells(with_scores(found, scores), "fidelity_mae") == [
        ("0.000", ("by definition",)),
        ("0.034", ("0.030 to 0.040", "n 40")),
    ]
    assert cells(with_scores(found, scores), "specificity_drop")[1] == ("−2 %", ("−10 to 0 %", "n 40"))


def test_what_nobody_can_tell_is_a_dash_with_the_reason(found: Demonstration) -> None:
    shown = with_scores(found, Scores(anchor=estimate(0.5)))
    assert cells(shown, "generality") == [("–", ("no words are held out",))] * 2
    assert cells(shown, "anchor")[0] == ("–", ("not measured",))


def test_the_concept_that_lost_most_is_named(found: Demonstration) -> None:
    scores = Scores(specificity_worst=estimate(0.5, 0.25, 0.75), worst="dog")
    assert cells(with_scores(found, scores), "specificity_worst")[1] == ("50 %", ("dog", "25 to 75 %", "n 40"))


def test_every_figure_is_in_the_table_or_is_its_base() -> None:
    from efface.evaluation.scores import FIGURES

    bases = {figure.base for figure in TABLE if isinstance(figure.base, str)}
    assert {figure.name for figure in TABLE} | bases == set(FIGURES)


def test_without_figures_the_page_says_why(show: Callable[..., Demonstration]) -> None:
    text = page(show(registry_of(None, Quick), unmeasured="nobody <knows>"))
    assert "There are no figures: nobody &lt;knows&gt;." in text


# The overview


def test_the_overview_has_a_row_for_the_base_and_one_for_each_method(show: Callable[..., Demonstration]) -> None:
    found = show(registry_of(None, Quick, Breaks, Slow), sampling=replace(ONE, seeds=(0, 1, 2)))
    sheet = overview._Overview(found).drawn()
    wide, high = drawing.cell(found.base[0])
    images = (found.base, found.outcomes[0].images)
    for row, prompt, seed in itertools.product(range(2), range(2), range(2)):
        left = (
            drawing.EDGE
            + overview.LABEL
            + prompt * (2 * wide + drawing.SEAM + drawing.GAP)
            + seed * (wide + drawing.SEAM)
        )
        top = drawing.EDGE + overview.HEAD + row * (high + drawing.SEAM)
        small = sheet.crop((left, top, left + wide, top + high)).resize(found.base[0].size, Image.Resampling.NEAREST)
        assert small.tobytes() == images[row][3 * prompt + seed].convert("RGB").tobytes()
    assert sheet.height == 2 * drawing.EDGE + overview.HEAD + 2 * (high + drawing.SEAM) - drawing.SEAM
    assert overview.png(found).startswith(b"\x89PNG")


def test_lines_break_between_words() -> None:
    wide = drawing.length("a cat and")
    assert drawing.wrapped("a cat and a dog", wide) == ["a cat and", "a dog"]
    assert drawing.wrapped("incomprehensible", 10) == ["incomprehensible"]
