"""A demonstration shows what happened, all of it, and nothing else; its page needs nothing but itself."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from PIL import Image

import efface
from efface import wording
from efface.concept import Concept, Request
from efface.errors import BadConcept, CannotSave, EffaceError, UnknownMethod
from efface.report.change import change, changes
from efface.report.demonstrating import demonstrate
from efface.report.demonstration import Demonstration, Failure, Outcome, Skipped
from efface.report.page import page
from efface.report.picture import data_uri
from efface.report.prompt import Prompt
from efface.report.sampling import Sampling
from efface.report.stopwatch import Stopwatch
from efface.report.touched import Touched
from efface.testing.pipelines import tiny_pipeline
from efface.writing import write

VOID = {"meta", "img", "br"}
PROMPTS = (Prompt("a cat", "concept"), Prompt("a cat and a car", "scene"), Prompt("a dog", "control"))
SAMPLING = Sampling(PROMPTS, (3, 5), steps=1, guidance=2.0)
ONE = Sampling(PROMPTS[:1], (0,), steps=1)


@dataclass(frozen=True)
class Stumbles:
    """Breaks down in its fit."""

    name: ClassVar[str] = "stumbles"

    def fit(self, model: efface.Model, request: efface.Request, run: efface.Run) -> efface.Fit:
        raise RuntimeError("a <b>singular</b>\nmatrix")

    def apply(self, patch: efface.Patch, fits: Sequence[efface.Fitted]) -> None: ...


@dataclass(frozen=True)
class Stalls:
    """Breaks down when a picture is made."""

    name: ClassVar[str] = "stalls"

    def fit(self, model: efface.Model, request: efface.Request, run: efface.Run) -> efface.Fit:
        return efface.Fit({})

    def apply(self, patch: efface.Patch, fits: Sequence[efface.Fitted]) -> None:
        patch.output("unet.mid", stall)


@dataclass(frozen=True)
class Stops(Stalls):
    """Is interrupted when a picture is made."""

    name: ClassVar[str] = "stops"

    def apply(self, patch: efface.Patch, fits: Sequence[efface.Fitted]) -> None:
        patch.output("unet.mid", stop)


@dataclass(frozen=True)
class Spoils(Stalls):
    """Leaves a weight changed."""

    name: ClassVar[str] = "spoils"

    def fit(self, model: efface.Model, request: efface.Request, run: efface.Run) -> efface.Fit:
        with torch.no_grad():
            next(model.unet.parameters()).mul_(1.5)
        return efface.Fit({})

    def apply(self, patch: efface.Patch, fits: Sequence[efface.Fitted]) -> None:
        patch.output("unet.mid", lambda tensor, call: tensor)


def stall(tensor: torch.Tensor, call: efface.Call) -> torch.Tensor:
    raise ValueError("stalled")


def stop(tensor: torch.Tensor, call: efface.Call) -> torch.Tensor:
    raise KeyboardInterrupt


class Troubles:
    @efface.hookimpl
    def efface_methods(self) -> list[type]:
        return [Stumbles, Stalls, Stops, Spoils]


@pytest.fixture(scope="module")
def methods(toys: dict[str, Any]) -> efface.Registry:
    class Toys:
        @efface.hookimpl
        def efface_methods(self) -> list[type]:
            return list(toys.values())

    return efface.Registry([Toys(), Troubles()])


@pytest.fixture(scope="module")
def show(methods: efface.Registry) -> Callable[..., Demonstration]:
    """Demonstrations on one tiny pipeline, with "cat" becoming "fish" unless told otherwise."""
    shared = tiny_pipeline("sd1")

    def demonstrated(*names: str, pipe: Any = shared, request: Request | None = None, **options: Any) -> Demonstration:
        asked = request or Request((Concept("cat", "fish"),), ("a bird",))
        options = {"model": "tiny", "registry": methods, "sampling": SAMPLING} | options
        return demonstrate(pipe, asked, methods=names, **options)

    return demonstrated


@pytest.fixture(scope="module")
def found(show: Callable[..., Demonstration]) -> Demonstration:
    """Two methods that work and one in between that does not."""
    watch = Stopwatch()
    with watch.timing("load"):
        pass
    return show("tilt", "stumbles", "nudge", watch=watch)


class Reader(HTMLParser):
    """What a page consists of; it also checks that every element is closed where it should be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    @property
    def pictures(self) -> list[tuple[str, Image.Image]]:
        images = [attributes for tag, attributes in self.elements if tag == "img"]
        return [(str(image["alt"]), decoded(str(image["src"]))) for image in images]

    @property
    def tags(self) -> set[str]:
        return {tag for tag, _ in self.elements}

    @property
    def attributes(self) -> Iterator[tuple[str, str]]:
        for _, attributes in self.elements:
            yield from ((name, value or "") for name, value in attributes.items())


def decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition("base64,")[2])))


def plain(width: int, height: int, colour: tuple[int, int, int]) -> Image.Image:
    return Image.new("RGB", (width, height), colour)


# How much pictures changed


def test_a_picture_does_not_differ_from_itself() -> None:
    assert change(plain(3, 2, (9, 8, 7)), plain(3, 2, (9, 8, 7))) == 0.0


def test_black_against_white_is_one_in_either_order() -> None:
    black, white = plain(4, 4, (0, 0, 0)), plain(4, 4, (255, 255, 255))
    assert change(black, white) == change(white, black) == 1.0


def test_one_channel_of_one_pixel_counts_by_its_share() -> None:
    before, after = plain(4, 2, (10, 10, 10)), plain(4, 2, (10, 10, 10))
    after.putpixel((1, 1), (10, 61, 10))
    assert change(before, after) == pytest.approx(51 / 255 / (4 * 2 * 3), abs=1e-15)


def test_changes_do_not_cancel_out() -> None:
    before, after = plain(2, 1, (100, 100, 100)), plain(2, 1, (100, 100, 100))
    after.putpixel((0, 0), (200, 200, 200))
    after.putpixel((1, 0), (0, 0, 0))
    assert change(before, after) == pytest.approx(100 / 255)


def test_pictures_of_different_sizes_are_not_compared() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        change(plain(2, 2, (0, 0, 0)), plain(2, 3, (0, 0, 0)))
    with pytest.raises(ValueError, match="shorter"):
        changes([plain(2, 2, (0, 0, 0))], [])


# What a demonstration finds


def test_the_results_come_in_the_order_asked_for(found: Demonstration) -> None:
    assert [result.method for result in found.results] == ["tilt", "stumbles", "nudge"]
    assert [outcome.method for outcome in found.outcomes] == ["tilt", "nudge"]


def test_the_pictures_are_those_of_the_pipeline_and_of_the_editor(
    found: Demonstration, pipe: Any, methods: Any
) -> None:
    assert [image.tobytes() for image in found.base] == [image.tobytes() for image in SAMPLING.pictures(pipe)]
    erasure = efface.erase(pipe, "cat", anchor="fish", keep=["a bird"], method="tilt", registry=methods)
    with efface.Editor(pipe, erasure, registry=methods):
        edited = SAMPLING.pictures(pipe)
    tilt = found.outcomes[0]
    assert [image.tobytes() for image in tilt.images] == [image.tobytes() for image in edited]
    assert tilt.sha256 == erasure.digest
    assert tilt.changes == changes(found.base, edited)
    assert min(tilt.changes) > 0


def test_the_size_is_that_of_the_saved_file(found: Demonstration, methods: Any, tmp_path: Path) -> None:
    erasure = efface.erase(tiny_pipeline("sd1"), "cat", anchor="fish", keep=["a bird"], method="tilt", registry=methods)
    erasure.save(tmp_path / "file")
    assert found.outcomes[0].size == (tmp_path / "file").stat().st_size


def test_a_method_that_fails_costs_the_others_nothing(found: Demonstration) -> None:
    (failure,) = found.failures
    assert failure.part == "fit"
    assert failure.error == "RuntimeError: a <b>singular</b> matrix"
    assert failure.detached is not None
    assert failure.detached.identical
    assert not found.sound


def test_a_method_that_fails_while_attached_comes_off(
    show: Callable[..., Demonstration], pipe: Any, hooks: Any
) -> None:
    found = show("stalls", "tilt", pipe=pipe, sampling=ONE)
    assert (found.failures[0].part, found.failures[0].error) == ("pictures", "ValueError: stalled")
    assert [outcome.method for outcome in found.outcomes] == ["tilt"]
    assert efface.Editor.of(pipe) is None
    assert not hooks(pipe)


def test_everything_is_as_before_afterwards(show: Callable[..., Demonstration], pipe: Any, state: Any) -> None:
    before = state(pipe)
    found = show("tilt", "word", pipe=pipe, sampling=ONE)
    after = state(pipe)
    assert (after.weights, after.hooks, after.modes) == (before.weights, before.hooks, before.modes)
    assert found.sound
    assert all(outcome.detached.identical for outcome in found.outcomes)


def test_an_interrupt_takes_the_edit_off(show: Callable[..., Demonstration], pipe: Any, hooks: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        show("stops", pipe=pipe, sampling=ONE)
    assert not hooks(pipe)


def test_after_a_method_that_spoils_the_model_nothing_more_is_tried(show: Callable[..., Demonstration]) -> None:
    found = show("tilt", "spoils", "nudge", pipe=tiny_pipeline("sd1"), sampling=ONE)
    tilt, spoils, nudge = found.results
    assert isinstance(tilt, Outcome)
    assert tilt.detached.identical
    assert isinstance(spoils, Outcome)
    assert (spoils.detached.same_weights, spoils.detached.same_picture) == (False, False)
    assert isinstance(nudge, Failure)
    assert nudge.error == "not tried: spoils left the model changed"
    assert nudge.detached is None
    text = Reader(page(found)).text
    assert "Detached: bit-identical to before: no" in text
    assert "not tried: spoils left the model changed" in text


def test_without_methods_all_are_shown(show: Callable[..., Demonstration], toys: Any) -> None:
    class Two:
        @efface.hookimpl
        def efface_methods(self) -> list[type]:
            return [toys["word"], toys["fade"]]

    found = show(registry=efface.Registry([Two()]), sampling=ONE)
    assert [result.method for result in found.results] == ["fade", "word"]
    assert found.sound


def test_plugins_that_cannot_be_loaded_are_named(show: Callable[..., Demonstration], toys: Any) -> None:
    class Half:
        @efface.hookimpl
        def efface_methods(self) -> list[type]:
            return [toys["tilt"]]

        @efface.hookimpl
        def efface_models(self) -> list[Any]:
            raise OSError("no disk")

    found = show(registry=efface.Registry([Half()]), sampling=ONE)
    assert found.not_loaded == ("Half: OSError: no disk",)
    assert "Half: OSError: no disk" in Reader(page(found)).text
    assert show("tilt", registry=efface.Registry([Half()]), sampling=ONE).not_loaded == ()


def test_without_an_anchor_the_neutral_prompt_is_used_and_said_to_be(show: Callable[..., Demonstration]) -> None:
    found = show("tilt", request=Request((Concept("cat"),)), sampling=ONE)
    assert (found.concept.anchor, found.anchor_given) == ("", False)
    assert found.outcomes[0].report["neutral anchor"] == ["cat"]
    assert "the empty prompt the model’s neutral prompt, as none was given" in Reader(page(found)).text


def test_mistakes_are_found_before_anything_is_computed(show: Callable[..., Demonstration]) -> None:
    with pytest.raises(UnknownMethod, match="Did you mean 'tilt'"):
        show("tlit")
    with pytest.raises(BadConcept, match="longer than the 16 tokens"):
        show("tilt", request=Request((Concept("cat" * 30),)))
    with pytest.raises(EffaceError, match="1000 timesteps: 1001 steps"):
        show("tilt", sampling=replace(SAMPLING, steps=1001))
    with pytest.raises(UnknownMethod, match="no method to show"):
        show(registry=efface.Registry())


def test_what_is_touched_is_grouped_by_form(found: Demonstration, pipe: Any, toys: Any, erasures: Any) -> None:
    tilt, nudge = (outcome.touched for outcome in found.outcomes)
    assert tilt.to_json() == {
        "points": ["unet.text"],
        "kinds": {"text": 1},
        "edits": [{"verb": "map", "kind": "text", "form": "low-rank", "rank": 2, "shape": [16, 16], "number": 1}],
    }
    assert nudge.kinds == {"cross_attn.v": 1, "weight": 1}
    assert [(group.verb, group.form, number) for group, number in nudge.edits.items()] == [
        ("map", "dense", 1),
        ("add", "low-rank", 1),
        ("add", "dense", 1),
    ]
    patch = efface.Patch(pipe)
    toys["fade"]().apply(patch, [efface.Fitted(erasures["fade"].fit, erasures["fade"].request)])
    fade = Touched.by([patch])
    assert fade.kinds == {"step": 1, "skip": 12}
    assert sorted((group.verb, group.form, number) for group, number in fade.edits.items()) == [
        ("output", "function", 12),
        ("step", "function", 1),
    ]


# The facts as JSON


def test_the_facts_are_json_and_their_means_are_means(found: Demonstration) -> None:
    facts = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert facts["model"]["parameters_in_all"] == sum(facts["model"]["parameters"].values()) > 0
    assert facts["sampling"]["seeds"] == [3, 5]
    assert facts["sampling"]["size"] == [16, 16]
    assert facts["request"]["concepts"][0] == Concept("cat", "fish").to_json()
    tilt, stumbles, nudge = facts["methods"]
    assert stumbles["error"] == "RuntimeError: a <b>singular</b> matrix"
    for method in (tilt, nudge):
        assert method["error"] is None
        assert set(method["seconds"]) == {"fit", "attach", "pictures", "detach", "check"}
        assert method["detached"]["bit_identical"]
        measured = method["mean_absolute_pixel_change"]
        assert [row["prompt"] for row in measured] == [prompt.text for prompt in PROMPTS]
        assert all(row["mean"] == sum(row["by_seed"]) / 2 for row in measured)


# The page


def test_the_page_says_what_was_done(found: Demonstration) -> None:
    text = Reader(page(found)).text
    for fact in (
        "cat → fish",
        "tiny draws pictures from text",
        f"{found.subject.total:,} parameters",
        "1 step, guidance 2",
        "DDIMScheduler, 16 × 16 px",
        "3, 5",
        "a bird",
        "cpu, float32",
        "1 map at text: rank 2, 16 × 16",
        "Failed during fit. RuntimeError: a <b>singular</b> matrix",
        "picture made again: same bytes",
        f"torch {found.environment['torch']}",
        "One low-rank map of the text.",
    ):
        assert fact in text


def test_every_prompt_is_labelled_by_what_it_is_there_for(found: Demonstration) -> None:
    text = Reader(page(found)).text
    assert text.count("erased concept") == text.count("two-object scene") == 3
    assert "a cat should now show fish" in text
    assert "a cat and a car cat should go, the rest should stay" in text
    assert "a dog should stay as it is" in text


def test_the_page_holds_every_picture_as_it_is(found: Demonstration) -> None:
    pictures = Reader(page(found)).pictures
    glance, strips = pictures[:9], pictures[9:]
    assert len(strips) == 2 * 2 * len(found.base)
    tilt = [image.tobytes() for _, image in strips[: 2 * len(found.base)]]
    before, after = ([image.tobytes() for image in images] for images in (found.base, found.outcomes[0].images))
    assert tilt == [*before[:2], *after[:2], *before[2:4], *after[2:4], *before[4:], *after[4:]]
    assert [alt for alt, _ in strips[:3]] == [
        "before, prompt “a cat”, seed 3",
        "before, prompt “a cat”, seed 5",
        "after tilt, prompt “a cat”, seed 3",
    ]
    assert [image.tobytes() for _, image in glance[:2]] == [before[0], after[0]]


def test_one_method_needs_no_glance_over_all(found: Demonstration) -> None:
    one, several = (Reader(page(shown)) for shown in (replace(found, results=found.results[:1]), found))
    assert ("At a glance" in one.text, "At a glance" in several.text) == (False, True)
    assert len(one.pictures) == 2 * len(found.base)


def test_the_page_says_why_a_method_was_not_run_or_not_fitted(found: Demonstration) -> None:
    tilt = replace(found.outcomes[0], file="tilt-cat.safetensors", why="fitting takes about 8 min")
    text = Reader(page(replace(found, results=(tilt, Skipped("slow", "no time"))))).text
    assert "Not fitted here: fitting takes about 8 min. Shown is the fitted file tilt-cat.safetensors" in text
    assert "slow Not run: no time." in text
    assert "1 was not run for want of time" in text


def test_the_changes_on_the_page_are_the_measured_ones(found: Demonstration) -> None:
    shown = re.findall(r"mean change (\d\.\d{3})", Reader(page(found)).text)
    assert shown == [f"{mean:.3f}" for outcome in found.outcomes for mean in found.mean_changes(outcome)]


def test_the_page_needs_nothing_but_itself(found: Demonstration) -> None:
    text = page(found)
    reader = Reader(text)
    assert "://" not in text
    assert not reader.tags & {"script", "link", "iframe", "object", "embed", "base", "form"}
    assert {value[:11] for name, value in reader.attributes if name in ("src", "href", "srcset")} == {"data:image/"}
    assert not re.search(r"url\(|@import", text)
    assert "default-src 'none'" in text


def test_no_text_on_the_page_is_taken_for_html(show: Callable[..., Demonstration]) -> None:
    found = show("tilt", "stumbles", request=Request((Concept("<script>", "<b>", ("<i>",)),), ('<img src="x">',)))
    evil = "'\"><script>alert(1)</script><img src=x onerror=alert(1)>"
    tilt = replace(
        found.outcomes[0],
        method=evil,
        about=evil,
        distribution=evil,
        settings={evil: evil},
        report={evil: {evil: [evil]}},
        touched=replace(found.outcomes[0].touched, points=(evil,), kinds={evil: 1}),
    )
    found = replace(
        found,
        subject=replace(found.subject, name=evil, scheduler=evil),
        sampling=replace(SAMPLING, prompts=(Prompt(evil, "concept"), *PROMPTS[1:])),
        results=(replace(tilt, file=evil, why=evil), Failure(evil, evil, evil), Skipped(evil, evil)),
        unmeasured=evil,
        environment=found.environment | {evil: evil},
        not_loaded=(evil,),
    )
    reader = Reader(page(found))
    assert "script" not in reader.tags
    assert not [name for name, _ in reader.attributes if name.startswith("on")]
    assert "<script> → <b>" in reader.text
    assert evil in reader.text


def test_a_lone_surrogate_does_not_keep_a_page_from_being_written(found: Demonstration) -> None:
    odd = replace(found, subject=replace(found.subject, name="\udcff"))
    assert page(odd).encode("utf-8", "xmlcharrefreplace")


def test_small_pictures_are_inlined_exactly_and_large_ones_reduced() -> None:
    small, large = plain(64, 48, (1, 2, 3)), plain(1024, 512, (1, 2, 3))
    assert decoded(data_uri(small)).tobytes() == small.tobytes()
    assert decoded(data_uri(large)).size == (256, 128)
    assert data_uri(large).startswith("data:image/jpeg;base64,")


def test_the_page_says_when_pictures_are_shown_reduced(found: Demonstration) -> None:
    large = replace(found, base=tuple(plain(300, 300, (0, 0, 0)) for _ in found.base))
    assert "shown reduced" in Reader(page(large)).text
    assert "shown reduced" not in Reader(page(found)).text


# Files


def test_a_file_is_written_whole_and_its_folder_made(tmp_path: Path) -> None:
    write(tmp_path / "new" / "page.html", b"whole", make_folder=True)
    assert (tmp_path / "new" / "page.html").read_bytes() == b"whole"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["page.html"]


@pytest.mark.parametrize("step", ["os.replace", "os.fsync"])
def test_a_write_that_fails_leaves_what_was_there(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "page.html"
    target.write_bytes(b"former")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(step, fail)
    with pytest.raises(CannotSave, match=r"page\.html: No space left on device"):
        write(target, b"new")
    assert target.read_bytes() == b"former"
    assert list(tmp_path.iterdir()) == [target]


def test_an_interrupted_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "page.html", b"new")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_not_overwritten(tmp_path: Path) -> None:
    with pytest.raises(CannotSave, match="not a regular file"):
        write(tmp_path, b"new")


# Wording


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "under 1 ms"),
        (0.0042, "4 ms"),
        (0.0996, "0.1 s"),
        (1.25, "1.2 s"),
        (59.96, "1 min 0 s"),
        (200, "3 min 20 s"),
    ],
)
def test_times_read_as_people_say_them(value: float, text: str) -> None:
    assert wording.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(-1.0, "0 s"), (0.4, "under 1 s"), (40.2, "40 s"), (300.0, "5 min"), (7200.0, "2 h"), (1e6, "278 h")],
)
def test_expected_times_are_rough(value: float, text: str) -> None:
    assert wording.roughly(value) == text


def test_numbers_read_as_people_say_them() -> None:
    assert [wording.count(number) for number in (999, 12_345, 12_345_678)] == ["999", "12,345", "12.3 million"]
    assert [wording.size(number) for number in (999, 12_345, 4_500_000)] == ["999 bytes", "12.3 kB", "4.5 MB"]
    assert [wording.counted(1, "point"), wording.counted(2, "point")] == ["1 point", "2 points"]
    assert wording.spans([0, 1, 2, 3, 7, 9, 10]) == "0–3, 7, 9, 10"


def test_json_values_read_as_a_line() -> None:
    assert wording.value([0.123456, None, True]) == "0.1235, none, yes"
    assert wording.value(list(range(20))) == "0, 1, 2, 3, 4, 5, 6, 7, ... (20 in all)"
    assert wording.value({}) == wording.value([]) == "none"
