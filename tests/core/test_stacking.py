"""Several concepts erased by several methods on one pipeline: who erases what, the page, other orders, and undoing."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

import efface
from efface import fingerprint
from efface.concept import Concept, Request
from efface.editor import Editor
from efface.errors import BadConcept, EffaceError
from efface.report.budget import Budget
from efface.report.dealing import NONE_LEFT, TOO_MANY, dealt
from efface.report.example import anchored, shown_together, together
from efface.report.page import stack_page
from efface.report.sampling import Sampling
from efface.report.shipped import Shipped
from efface.report.stacked import Stacked
from efface.report.stacking import Figures, stack
from efface.report.supply import Supply
from efface.testing.pipelines import tiny_pipeline
from efface_hooks import Wiring


class Words(efface.Suite):
    """Knows a few words of the tiny tokenizer, and has an opinion that any other byte would change."""

    name = "words"
    summary = "a few words"
    digest = "1"
    guidance = 2.0
    stack: Sequence[Concept] = (Concept("cat", "tree"), Concept("dog"), Concept("cubist", "gothic", kind="style"))

    @property
    def example(self) -> Request:
        return Request((Concept("cat", "fish"),), ("a bird", "a dog"), ("a {}",))

    def accepts(self, model: efface.Model) -> bool:
        return True

    def concepts(self, kind: Any = None) -> Sequence[efface.SuiteConcept]:
        every = (
            efface.SuiteConcept("cat", neighbours=("dog", "tom", "bird")),
            efface.SuiteConcept("dog", neighbours=("cat", "bird", "fish")),
            efface.SuiteConcept("bird"),
            efface.SuiteConcept("fish"),
            efface.SuiteConcept("tom", kind="person", shows=("cat",)),
            efface.SuiteConcept("cubist", kind="style", neighbours=("gothic",)),
            efface.SuiteConcept("gothic", kind="style"),
        )
        return [one for one in every if kind in (None, one.kind)]

    def templates(self, kind: Any) -> Sequence[str]:
        return {"object": ("a {}",), "style": ("a house in {} style",), "person": ("{}",)}[kind]

    def scenes(self, concept: str) -> Sequence[efface.Scene]:
        others = ("dog", "tree", "bird", "fish") if concept == "cat" else ()
        return [efface.Scene(f"a {concept} and a {other}", other) for other in others]

    def unrelated(self, concept: str) -> Sequence[str]:
        every = ("a car", "a house", "a gothic house", "a dog house", "a red car", "a red house", "a red bird")
        return every if concept == "cat" else every[1:]

    def found(self, images: Sequence[Image.Image], concept: str) -> Any:
        digests = [hashlib.sha256(image.tobytes() + concept.encode()).digest() for image in images]
        return np.array([digest[0] / 255 for digest in digests])


@dataclass(frozen=True)
class Toy:
    """An edit that differs from concept to concept."""

    name: ClassVar[str] = "toy"
    cost_hint: ClassVar[float] = 2.0

    def fit(self, model: efface.Model, request: Request, run: efface.Run) -> efface.Fit:
        return efface.Fit({}, {"word": request.concepts[0].text})

    def apply(self, patch: efface.Patch, fits: Sequence[efface.Fitted]) -> None:
        for fitted in fits:
            patch.output("unet.mid", plus(len(str(fitted.fit.facts["word"]))))


class Times(Toy):
    name: ClassVar[str] = "times"
    cost_hint: ClassVar[float] = 1.0

    def apply(self, patch: efface.Patch, fits: Sequence[efface.Fitted]) -> None:
        patch.output("unet.mid", lambda x, call: x * 1.5)


class Skips(Toy):
    name: ClassVar[str] = "skips"
    cost_hint: ClassVar[float] = 3.0

    def apply(self, patch: efface.Patch, fits: Sequence[efface.Fitted]) -> None:
        patch.output("unet.skip.0", lambda x, call: x * 0.5)


class Breaks(Toy):
    name: ClassVar[str] = "breaks"

    def fit(self, model: efface.Model, request: Request, run: efface.Run) -> efface.Fit:
        raise ValueError("of\nno use")


class Slow(Toy):
    name: ClassVar[str] = "slow"
    cost_hint: ClassVar[float] = 1e6


def plus(number: int) -> Callable[[Any, efface.Call], Any]:
    return lambda x, call: x + number


def registry_of(*methods: type) -> efface.Registry:
    return efface.Registry([SimpleNamespace(efface_methods=efface.hookimpl(lambda: list(methods)))])


SUITE = Words()
REQUESTS = together(SUITE)
ONE = Sampling((), (3,), steps=1)


@pytest.fixture(scope="module")
def tiny() -> Any:
    return tiny_pipeline("sd1")


@pytest.fixture(scope="module")
def deal(tiny: Any) -> Callable[..., Any]:
    def deal(*methods: type, left: float = 600.0, requests: Sequence[Request] = REQUESTS) -> Any:
        registry = registry_of(*methods)
        supply = Supply(tiny, registry, SUITE, Shipped(tiny, registry), Budget(600), 0, lambda *said: None)
        return dealt(supply, requests, [method.name for method in methods], lambda: left)  # type: ignore[attr-defined]

    return deal


@pytest.fixture(scope="module")
def show(tiny: Any) -> Callable[..., Stacked]:
    def show(*methods: type, **options: Any) -> Stacked:
        given: dict[str, Any] = {"model": "tiny", "registry": registry_of(*methods)} | options
        return stack(tiny, SUITE, ONE, **given)

    return show


def noise(pipe: Any, prompts: Sequence[str], seeds: Sequence[int], **how: Any) -> list[Image.Image]:
    """Pictures that cost nothing: noise that prompt, seed and the edits that are on decide."""
    wiring = Wiring.of(pipe)
    edits = [(edit.point.name, edit.scale) for patch in wiring.patches for edit in patch.edits] if wiring else []
    keys = [hashlib.sha256(f"{prompts} {seed} {edits}".encode()).digest() for seed in seeds]
    return [Image.fromarray(np.frombuffer(key * 6, dtype=np.uint8).reshape(8, 8, 3)) for key in keys]


@pytest.fixture(scope="module", autouse=True)
def camera() -> Iterator[None]:
    """Nor is it asked whether an erasure was made for this base, which costs more than all the rest."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(fingerprint, "check", lambda *given: fingerprint.Likeness(0.0, 1.0))
        patched.setattr("efface.evaluation.studio.generate", noise)
        yield


@pytest.fixture(scope="module")
def found(show: Callable[..., Stacked]) -> Stacked:
    """Three concepts by two methods whose edits at one place depend on their order, with figures."""
    return show(Toy, Times, figures=Figures(seeds=(0, 1), steps=1))


# What is erased and shown


def test_the_suite_says_what_to_erase_and_its_example_what_to_keep() -> None:
    assert [request.concepts for request in REQUESTS] == [(one,) for one in SUITE.stack]
    assert REQUESTS[0].keep == ("a bird", "a dog"), "what another erasure takes is still kept by this one"
    assert REQUESTS[1].keep == ("a cat", "a bird")
    assert REQUESTS[2].templates == ("a house in {} style",)


def test_without_an_anchor_it_becomes_the_neutral_prompt_and_the_empty_one_stays_empty() -> None:
    asked = Request((Concept("cat"), Concept("dog", ""), Concept("bird", "fish")))
    assert [one.anchor for one in anchored(asked, "a picture").concepts] == ["a picture", "", "fish"]


def test_a_suite_without_a_stack_has_nothing_to_erase_together() -> None:
    silent = Words()
    silent.stack = ()
    with pytest.raises(BadConcept, match="The suite words names no concepts to erase together"):
        together(silent)


def test_each_concept_is_shown_and_three_of_each_sort_that_should_stay() -> None:
    assert [(one.text, one.role) for one in shown_together(SUITE, REQUESTS)] == [
        ("a cat", "concept"),
        ("a dog", "concept"),
        ("a house in cubist style", "concept"),
        ("a bird", "neighbour"),
        ("a fish", "neighbour"),
        ("a cat and a bird", "scene"),
        ("a house", "control"),
        ("a red car", "control"),
        ("a red house", "control"),
    ]


# Who erases what


def test_concepts_go_to_methods_in_turn(deal: Callable[..., Any]) -> None:
    found = deal(Times, Toy, Skips)
    assert {concept: method for concept, (method, *_) in found.taken.items()} == {
        "cat": "times",
        "dog": "toy",
        "cubist": "skips",
    }
    assert [taken.erasure.concepts[0].text for _, taken, _ in found.taken.values()] == ["cat", "dog", "cubist"]
    assert all(seconds > 0 for *_, seconds in found.taken.values())
    assert (found.missing, found.failures) == ({}, {})


def test_a_method_without_time_or_file_drops_out(deal: Callable[..., Any]) -> None:
    found = deal(Toy, Slow)
    assert [method for method, *_ in found.taken.values()] == ["toy", "toy", "toy"]
    assert found.missing["slow"].startswith("fitting takes about 278 h, 10 min of the budget left; --refit")


def test_a_method_too_many_is_named(deal: Callable[..., Any]) -> None:
    found = deal(Times, Toy, requests=REQUESTS[:1])
    assert ([method for method, *_ in found.taken.values()], found.missing) == (["times"], {"toy": TOO_MANY})


def test_a_fit_that_breaks_costs_its_concept_alone(deal: Callable[..., Any]) -> None:
    found = deal(Times, Breaks)
    assert ([*found.taken], found.failures) == (["cat", "cubist"], {"dog": "breaks: ValueError: of no use"})
    assert found.missing == {}


def test_without_any_method_left_nothing_is_erased(deal: Callable[..., Any], show: Callable[..., Stacked]) -> None:
    assert deal(Slow).failures == dict.fromkeys(("cat", "dog", "cubist"), NONE_LEFT)
    with pytest.raises(EffaceError, match="Nothing could be erased: cat: no method is left"):
        show(Slow)


# All of it


def test_everything_is_on_one_pipeline_and_comes_off_again(found: Stacked, tiny: Any) -> None:
    assert [(part.label, part.method, part.concept.anchor) for part in found.parts] == [
        ("times-cat", "times", "tree"),
        ("toy-dog", "toy", ""),
        ("times-cubist", "times", "gothic"),
    ]
    assert found.detached.identical
    assert found.sound
    assert Editor.of(tiny) is None
    assert [one.label for one in found.plan.erasures] == [part.label for part in found.parts]
    assert found.plan.meetings == {"unet.mid": ("times-cat", "toy-dog", "times-cubist")}
    assert (len(found.base), len(found.images)) == (9, 9)
    assert max(found.changes) > 0


def test_each_erasure_comes_off_as_if_it_had_never_been_on(found: Stacked) -> None:
    labels = {part.label for part in found.parts}
    assert {removal.label for removal in found.removals} == labels
    assert [set(removal.left) for removal in found.removals] == [
        labels - {one.label for one in found.removals[: number + 1]} for number in range(3)
    ]
    assert all(removal.identical for removal in found.removals)


def test_who_is_named_comes_in_that_order(show: Callable[..., Stacked]) -> None:
    named = show(Times, Skips, Toy, methods=["skips", "times", "skips"])
    assert [part.method for part in named.parts] == ["skips", "times", "skips"]


def test_a_trace_that_is_left_shows(show: Callable[..., Stacked], monkeypatch: pytest.MonkeyPatch) -> None:
    traces = iter(range(100))
    monkeypatch.setattr(Sampling, "latents", lambda self, pipe: str(next(traces)))
    found = show(Toy)
    assert not any(removal.identical for removal in found.removals)
    assert not found.sound


def test_another_order_is_measured_where_it_gives_other_latents(found: Stacked) -> None:
    labels = [part.label for part in found.parts]
    assert found.orders[0].labels == tuple(labels[::-1])
    assert [sorted(order.labels) for order in found.orders] == [sorted(labels)] * len(found.orders)
    assert not any(order.identical for order in found.orders if order.labels.index("toy-dog") != 1)
    for order in found.orders:
        assert (order.evaluation is None) == order.identical
    assert all(order.evaluation.alone == () for order in found.orders if order.evaluation)


def test_where_the_order_changes_no_bit_the_figures_stand(show: Callable[..., Stacked]) -> None:
    found = show(Times, Skips, figures=Figures(seeds=(0,), steps=1))
    assert [(order.identical, order.evaluation) for order in found.orders] == [(True, None)] * len(found.orders)


def test_the_figures_are_those_of_the_stack_and_of_each_alone(found: Stacked) -> None:
    assert found.evaluation is not None
    assert [one.label for one in found.evaluation.alone] == [part.label for part in found.parts]
    for part in found.parts:
        alone, stacked = found.scores(part)
        assert alone is not None
        assert stacked == found.evaluation.concepts[part.concept.text]
    assert found.matrix is not None
    assert found.lost == found.matrix.lost[-1]


def test_a_concept_that_nothing_erases_is_not_shown(show: Callable[..., Stacked]) -> None:
    found = show(Times, Breaks)
    assert (found.failures, found.sound) == ({"dog": "breaks: ValueError: of no use"}, False)
    assert [prompt.text for prompt in found.sampling.prompts[:3]] == ["a cat", "a house in cubist style", "a bird"]
    assert len(found.base) == len(found.sampling.prompts) == 8
    asked = [found.becomes(prompt) for prompt in found.sampling.prompts]
    assert [one.text for one in asked if one] == ["cat", "cubist"]
    assert "<strong>dog is not erased.</strong> breaks: ValueError: of no use" in stack_page(found)


# The page


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_the_page_needs_nothing_else(found: Stacked) -> None:
    tags = Page(stack_page(found)).tags
    assert "script" not in dict(tags)
    sources = [str(attributes["src"]) for tag, attributes in tags if tag == "img"]
    assert len(sources) == 2 * len(found.base)
    assert all(source.startswith("data:image/") for source in sources)


def test_the_page_has_the_matrix_as_a_heat_map(found: Stacked) -> None:
    assert found.matrix is not None
    cells = [attributes for tag, attributes in Page(stack_page(found)).tags if "--heat" in str(attributes.get("style"))]
    values = [cell.value for row in found.matrix.rows.values() for cell in row if cell]
    assert [cell["style"] for cell in cells[: len(values)]] == [f"--heat: {value:.3f}" for value in values]
    assert sum(cell.get("class") == "own" for cell in cells) == len(found.parts)


def test_the_page_says_what_was_not_measured(show: Callable[..., Stacked]) -> None:
    found = show(Toy, unmeasured="there was <no> time")
    assert (found.evaluation, found.matrix) == (None, None)
    assert all(order.evaluation is None for order in found.orders)
    assert "There are no figures: there was &lt;no&gt; time." in stack_page(found)


def test_json_holds_it_all(found: Stacked) -> None:
    data = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert [part["method"] for part in data["parts"]] == ["times", "toy", "times"]
    assert len(data["figures"]["alone"]) == 3
    assert data["orders"][0]["latents_identical"] is found.orders[0].identical
    assert data["detached"]["bit_identical"] is True


def test_the_orders_come_out_the_same_again(show: Callable[..., Stacked], found: Stacked) -> None:
    random.seed(5)
    again = show(Toy, Times)
    assert [replace(order, evaluation=None) for order in again.orders] == [
        replace(order, evaluation=None) for order in found.orders
    ]
    assert [one.label for one in again.removals] == [one.label for one in found.removals]
