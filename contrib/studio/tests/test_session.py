"""What the page does to the pipeline, without the page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import efface
from efface.testing.state import State

pytest.importorskip("efface_studio")
from efface_studio.session import POLICY, Session, Shot

SHOT = Shot("a cat", steps=2)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    made = Session("picturebook", tmp_path_factory.mktemp("saved"))
    made.pictures(SHOT)
    return made


@pytest.fixture
def empty(session: Session) -> Iterator[Session]:
    yield session
    session.editor.detach()


def erase(session: Session, concept: str, **settings: object) -> str:
    return session.erase(efface.Concept(concept, anchor="fish"), "uce", settings)


def same(one: Any, other: Any) -> bool:
    return np.array_equal(np.asarray(one), np.asarray(other))


def test_an_erasure_shows_after_and_not_before(empty: Session) -> None:
    bare, _ = empty.pictures(SHOT)
    erase(empty, "cat")
    before, after = empty.pictures(SHOT)
    assert same(before, bare)
    assert not same(after, before)


def test_several_are_switched_and_scaled_apart(empty: Session) -> None:
    cat, car = erase(empty, "cat"), erase(empty, "car")
    empty.switch(cat, False)
    empty.scale(car, 0.5)
    assert [(one.label, one.enabled, one.scale) for one in empty.entries] == [(cat, False, 1.0), (car, True, 0.5)]
    empty.switch(car, False)
    before, after = empty.pictures(SHOT)
    assert same(before, after)


def test_comparing_leaves_the_list_as_it_was(empty: Session) -> None:
    cat = erase(empty, "cat")
    empty.scale(cat, 0.5)
    empty.switch(cat, False)
    entries = empty.entries
    empty.pictures(Shot("a dog", seed=3, steps=2))
    assert empty.entries == entries


def test_a_fit_that_fails_changes_nothing(empty: Session) -> None:
    erase(empty, "cat")
    entries = empty.entries
    with pytest.raises(efface.BadSetting):
        erase(empty, "car", lamb=-1)
    assert empty.entries == entries


def test_what_is_on_is_saved_with_a_policy_that_holds(empty: Session) -> None:
    cat, car = erase(empty, "cat"), erase(empty, "car")
    empty.scale(car, 0.5)
    files = empty.save()
    assert [file.name for file in files] == [f"{cat}.safetensors", f"{car}.safetensors", POLICY]
    policy = efface.Policy.load(files[-1])
    assert [(one.file, one.scale) for one in policy.erasures] == [(files[0].name, 1.0), (files[1].name, 0.5)]
    with efface.apply(efface.load(policy.source), policy) as editor:
        assert [entry.erasure for entry in editor.entries] == [entry.erasure for entry in empty.entries]


def test_nothing_is_saved_where_nothing_is_on(empty: Session) -> None:
    empty.switch(erase(empty, "cat"), False)
    with pytest.raises(efface.EffaceError, match="nothing to save"):
        empty.save()


def test_methods_that_draw_are_asked_and_others_are_not(empty: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    from efface.report.illustration import Illustration

    label = erase(empty, "cat")
    assert empty.illustrations(SHOT) == []
    seen = []

    def illustrate(self: object, erasure: efface.Erasure, showing: Any) -> list[Illustration]:
        seen.append((erasure.concepts[0].text, efface.Editor.of(showing.pipe), len(showing.base)))
        return [Illustration("a map", showing.base[0])]

    monkeypatch.setattr(empty.registry.method("uce"), "illustrate", illustrate, raising=False)
    ((found, drawn),) = empty.illustrations(SHOT)
    assert (found, drawn.about, seen) == (label, "a map", [("cat", None, 1)])
    assert [entry.label for entry in empty.entries] == [label]


def test_a_model_that_cannot_be_loaded_leaves_the_one_there_is(empty: Session) -> None:
    erase(empty, "cat")
    pipe, entries = empty.pipe, empty.entries
    with pytest.raises(efface.UnknownModel):
        empty.open("no-such-model")
    assert (empty.pipe, empty.entries, empty.model) == (pipe, entries, "picturebook")


def test_the_pipeline_is_as_it_was_when_all_are_off(empty: Session) -> None:
    before = State.of(empty.pipe)
    label = erase(empty, "cat")
    empty.pictures(SHOT)
    empty.detach(label)
    assert before.changed(State.of(empty.pipe)) == ""


def test_a_saved_erasure_is_put_on_again(empty: Session, tmp_path: Path) -> None:
    label = erase(empty, "cat")
    _, after = empty.pictures(SHOT)
    empty.entries[0].erasure.save(tmp_path / "cat.safetensors")
    empty.detach(label)
    empty.attach(tmp_path / "cat.safetensors")
    assert same(empty.pictures(SHOT)[1], after)
