"""The form of a method is made from its settings, and what is typed in comes back as settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

import efface

pytest.importorskip("efface_studio")
from efface_studio.form import Field, fields, phrases, settings


@dataclass(frozen=True)
class Toy:
    """Has a setting of every kind."""

    name = "toy"
    share: float = efface.setting(0.5, min=0, max=1, help="how much")
    steps: int = efface.setting(10, min=1, help="how often")
    loud: bool = efface.setting(False, help="whether to say so")
    where: Literal["near", "far"] = efface.setting("near", help="where")
    layers: tuple[int, ...] = efface.setting((1, 2), help="which")
    rank: int | None = efface.setting(None, min=1, help="how thin")


def test_every_setting_has_a_field_of_its_kind() -> None:
    assert fields(Toy) == [
        Field("share", "number", 0.5, "how much", min=0, max=1),
        Field("steps", "whole", 10, "how often", min=1),
        Field("loud", "switch", False, "whether to say so"),
        Field("where", "choice", "near", "where", ("near", "far")),
        Field("layers", "text", "1, 2", "which (int, ...)"),
        Field("rank", "text", "none", "how thin (int | none)"),
    ]


def test_a_preset_fills_the_form() -> None:
    filled = {one.name: one.value for one in fields(Toy, {"share": 0.25, "rank": 3})}
    assert filled["share"] == 0.25
    assert filled["rank"] == "3"
    assert filled["steps"] == 10


def test_what_is_shown_comes_back_as_the_defaults() -> None:
    defaults = {setting.name: setting.default for setting in efface.describe(Toy)}
    assert settings(Toy, [one.value for one in fields(Toy)]) == defaults


def test_a_browsers_numbers_are_read() -> None:
    found = settings(Toy, [1, 3.0, True, "far", "4", "7"])
    assert found == {"share": 1.0, "steps": 3, "loud": True, "where": "far", "layers": (4,), "rank": 7}


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ([2, 3, True, "far", "", "none"], "share must be at most 1"),
        ([None, 3, True, "far", "", "none"], "share must be a number"),
        ([1, 3.5, True, "far", "", "none"], "steps must be a whole number"),
        ([1, 3, True, "far", "a, b", "none"], "layers must be a whole number"),
    ],
)
def test_what_a_setting_cannot_take_is_said(typed: list[object], said: str) -> None:
    with pytest.raises(efface.BadSetting, match=said):
        settings(Toy, typed)


def test_phrases_stand_between_commas() -> None:
    assert phrases(" a cat,, a dog ,") == ("a cat", "a dog")
