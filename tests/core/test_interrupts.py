"""Wherever Ctrl-C strikes, a pipeline is left in the old state or in the new one, and can be given back."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor

import efface
import efface_hooks
from efface import Editor, Erasure, Registry, editor, erase
from efface import fingerprint as fingerprints
from efface.fingerprint import Likeness
from efface_hooks import Wiring, wiring
from efface_hooks.patch import Patch

WATCHED = (
    *(os.path.dirname(package.__file__) for package in (efface, efface_hooks)),
    contextlib.__file__,
    torch.nn.modules.module.__file__,
)
POINTS = int(os.environ.get("EFFACE_TEST_INTERRUPTS", "5"))

Erasures = Mapping[str, Erasure]


@dataclass
class Strike:
    """Counts the lines that run in efface, and interrupts before one of them."""

    at: int | None = None
    seen: int = 0

    def on(self, act: Callable[[], Any]) -> Strike:
        before = sys.gettrace()
        sys.settrace(self._called)
        try:
            act()
        finally:
            sys.settrace(before)
        return self

    def _called(self, frame: FrameType, event: str, argument: object) -> Any:
        return self._line if frame.f_code.co_filename.startswith(WATCHED) else None

    def _line(self, frame: FrameType, event: str, argument: object) -> Any:
        if event == "line":
            self.seen += 1
            if self.seen == self.at:
                raise KeyboardInterrupt
        return self._line


@dataclass(frozen=True)
class Outcome:
    """What a pipeline shows of an editor."""

    entries: tuple[tuple[str, float, bool], ...]
    edits: tuple[tuple[str, str, float], ...]
    wired: frozenset[tuple[str, int]]
    weights: str


@pytest.fixture
def outcome(pipe: Any, hooks: Any, weights: Any) -> Callable[[Editor], Outcome]:
    def look(one: Editor) -> Outcome:
        assert one.verify() == []
        on = Wiring.of(pipe)
        return Outcome(
            entries=tuple((entry.label, entry.scale, entry.enabled) for entry in one.entries),
            edits=tuple(
                (edit.point.name, edit.verb, edit.scale) for patch in (on.patches if on else ()) for edit in patch.edits
            ),
            wired=frozenset(hooks(pipe).items()),
            weights=weights(pipe),
        )

    return look


@pytest.fixture(autouse=True)
def known_base(monkeypatch: Any) -> None:
    """Recognising the base reads weights and nothing else; it would only dilute the places to strike at."""
    monkeypatch.setattr(fingerprints, "check", lambda *arguments, **options: Likeness(0.0, 1.0))


def places(count: int) -> list[int]:
    """Lines to strike at: a sample that is the same in every run, with the first and the last."""
    chosen = random.Random(0).sample(range(1, count + 1), min(POINTS, count))
    return sorted({1, count, *chosen})


def strikes(act: Callable[[], Any]) -> int:
    """How many lines an act runs."""
    return Strike().on(act).seen


ACTS: dict[str, tuple[Callable[[Editor, Erasures], Any], bool]] = {
    "attach": (lambda one, stock: one.attach(stock["fade"], scale=0.5), False),
    "detach": (lambda one, stock: one.detach("tilt-cat"), False),
    "detach all": (lambda one, stock: one.detach(), False),
    "disable": (lambda one, stock: one.disable("word-cat"), False),
    "scale": (lambda one, stock: one.scale("tilt-cat", 0.5), False),
    "move": (lambda one, stock: one.move("tilt-cat", 1), False),
    "reattach": (lambda one, stock: one.reattach(), False),
    "fuse": (lambda one, stock: one.fuse(), False),
    "unfuse": (lambda one, stock: one.unfuse(), True),
}


@pytest.mark.parametrize("name", ACTS)
def test_an_interrupted_change_happened_wholly_or_not_at_all(
    name: str, pipe: Any, registry: Registry, erasures: Erasures, outcome: Any, state: Any, latents: Any
) -> None:
    act, fused = ACTS[name]
    base = state(pipe)

    def opened() -> Editor:
        one = Editor(pipe, erasures["tilt"], erasures["word"], erasures["nudge"], registry=registry)
        if fused:
            one.fuse()
        return one

    pictures: dict[Outcome, Tensor] = {}
    with opened() as one:
        pictures[outcome(one)] = latents(pipe, "a cat")
        total = strikes(lambda: act(one, erasures))
        pictures[outcome(one)] = latents(pipe, "a cat")
    assert state(pipe) == base
    for position, place in enumerate(places(total)):
        one = opened()
        with pytest.raises(KeyboardInterrupt):
            Strike(place).on(lambda one=one: act(one, erasures))
        found = outcome(one)
        assert found in pictures, f"after line {place} of {total}"
        if position % 4 == 0:
            assert torch.equal(latents(pipe, "a cat"), pictures[found]), f"after line {place} of {total}"
        one.close()
        assert state(pipe) == base, f"after line {place} of {total}"


def test_an_interrupted_editor_left_nothing_or_can_be_found(
    pipe: Any, registry: Registry, erasures: Erasures, state: Any, latents: Any
) -> None:
    base, plain = state(pipe), latents(pipe, "a cat")
    make = lambda: Editor(pipe, erasures["tilt"], erasures["fade"], registry=registry)  # noqa: E731
    total = strikes(make)
    Editor.of(pipe).close()  # type: ignore[union-attr]
    for place in places(total):
        with pytest.raises(KeyboardInterrupt):
            Strike(place).on(make)
        found = Editor.of(pipe)
        if found is not None:
            assert found.verify() == []
            found.close()
        assert state(pipe) == base, f"after line {place} of {total}"
    assert torch.equal(latents(pipe, "a cat"), plain)


@pytest.mark.parametrize("fused", [False, True])
def test_an_interrupted_close_happened_wholly_or_not_at_all(
    fused: bool, pipe: Any, registry: Registry, erasures: Erasures, outcome: Any, state: Any
) -> None:
    base = state(pipe)

    def opened() -> Editor:
        one = Editor(pipe, erasures["tilt"], erasures["word"], registry=registry)
        if fused:
            one.fuse()
        return one

    one = opened()
    old, total, new = outcome(one), strikes(one.close), outcome(one)
    for place in places(total):
        one = opened()
        with pytest.raises(KeyboardInterrupt):
            Strike(place).on(one.close)
        assert outcome(one) in (old, new), f"after line {place} of {total}"
        one.close()
        assert state(pipe) == base, f"after line {place} of {total}"
    for call in range(1, 5):
        one = opened()
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(wiring, "_unhook", interrupting(wiring._unhook, call, after=False))
            with pytest.raises(KeyboardInterrupt):
                one.close()
        assert outcome(one) == new, f"call {call}"
        assert state(pipe) == base


def test_an_interrupted_fit_puts_the_edits_back(
    pipe: Any, registry: Registry, erasures: Erasures, outcome: Any
) -> None:
    with Editor(pipe, erasures["tilt"], erasures["word"], registry=registry) as one:
        old = outcome(one)
        act = lambda: erase(pipe, "dog", anchor="tree", method="tilt", registry=registry)  # noqa: E731
        act()  # so that what is remembered from the first time is in place
        total = strikes(act)
        for place in places(total):
            with pytest.raises(KeyboardInterrupt):
                Strike(place).on(act)
            assert outcome(one) == old, f"after line {place} of {total}"


def test_an_interrupt_while_a_fit_puts_the_edits_back_puts_them_back_all_the_same(
    pipe: Any, registry: Registry, erasures: Erasures, outcome: Any
) -> None:
    with Editor(pipe, erasures["tilt"], erasures["word"], registry=registry) as one:
        old = outcome(one)
        for call in range(1, 7):
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(Wiring, "_hook", interrupting(Wiring._hook, call, after=False))
                with pytest.raises(KeyboardInterrupt):
                    erase(pipe, "dog", anchor="tree", method="tilt", registry=registry)
            assert outcome(one) == old, f"call {call}"


# Named places


def interrupting(function: Callable[..., Any], call: int, after: bool) -> Callable[..., Any]:
    """The function, but for an interrupt right before or after one of its calls."""
    calls = itertools.count(1)

    def wrapped(*arguments: Any, **options: Any) -> Any:
        struck = next(calls) == call
        if struck and not after:
            raise KeyboardInterrupt
        result = function(*arguments, **options)
        if struck:
            raise KeyboardInterrupt
        return result

    return wrapped


@pytest.mark.parametrize(("owner", "name"), [(Wiring, "_hook"), (wiring, "_unhook"), (Patch, "_record")])
@pytest.mark.parametrize("after", [False, True])
def test_every_hook_and_every_verb_may_be_interrupted(
    owner: Any, name: str, after: bool, pipe: Any, registry: Registry, erasures: Erasures, outcome: Any
) -> None:
    with Editor(pipe, erasures["tilt"], registry=registry) as one:
        old, call = outcome(one), 0
        one.attach(erasures["fade"])
        new = outcome(one)
        one.detach("fade-cat")
        while outcome(one) == old:
            call += 1
            with pytest.MonkeyPatch.context() as patched, contextlib.suppress(KeyboardInterrupt):
                patched.setattr(owner, name, interrupting(getattr(owner, name), call, after))
                one.attach(erasures["fade"])  # goes through once there are no more calls to interrupt
        assert outcome(one) == new
        assert call > 4


@pytest.mark.parametrize("strike_at", [1, 2, 5])
def test_weights_that_are_half_written_are_put_back(
    strike_at: int, pipe: Any, registry: Registry, erasures: Erasures, outcome: Any, monkeypatch: Any
) -> None:
    write = editor.Fusion.write

    def half(self: Any) -> None:
        write(replace(self, writings=self.writings[:strike_at]))
        raise KeyboardInterrupt

    with Editor(pipe, erasures["tilt"], erasures["nudge"], registry=registry) as one:
        old = outcome(one)
        with monkeypatch.context() as patched:
            patched.setattr(editor.Fusion, "write", half)
            with pytest.raises(KeyboardInterrupt):
                one.fuse()
        assert outcome(one) == old
        one.fuse()
        one.unfuse()
        assert outcome(one) == old
