"""The prompts that carry a concept: the request's own, then built-in ones of its kind."""

from __future__ import annotations

import pytest

import efface
from efface.concept import Kind
from efface_erasepro.templates import BUILT_IN, templates


def request(*kinds: Kind, own: tuple[str, ...] = ("{}", "my {}")) -> efface.Request:
    return efface.Request(tuple(efface.Concept(f"thing {kind}", kind=kind) for kind in kinds), templates=own)


def test_the_requests_templates_come_first_and_stay_all() -> None:
    assert templates(request("object"), 1) == ("{}", "my {}")
    assert templates(request("object"), 5)[:2] == ("{}", "my {}")


@pytest.mark.parametrize("kind", ["object", "style", "person", "explicit"])
def test_built_in_ones_of_the_kind_fill_up_to_the_number_asked_for(kind: Kind) -> None:
    found = templates(request(kind), 8)
    assert len(found) == len(set(found)) == 8
    assert set(found[2:]) <= set(BUILT_IN[kind])


def test_of_two_kinds_both_have_their_turn() -> None:
    added = set(templates(request("object", "style"), 8)[2:])
    assert added & set(BUILT_IN["object"])
    assert added & set(BUILT_IN["style"]) - set(BUILT_IN["object"])


def test_there_are_no_more_than_are_known() -> None:
    assert set(templates(request("style"), 1000)) == {"{}", "my {}", *BUILT_IN["style"]}
