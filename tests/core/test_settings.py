"""Settings are declared once and read from everywhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Optional

import pytest

from efface.errors import BadSetting, PluginError
from efface.settings import as_dict, build, describe, preset, setting


@dataclass(frozen=True)
class Painter:
    """A method-like class with a setting of every type."""

    name: ClassVar[str] = "painter"
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {"paper": {"rate": 0.1, "layers": (1, 2)}}

    steps: int = setting(10, min=1, max=100, help="how many steps")
    rate: float = setting(0.5, min=0, help="how fast")
    quiet: bool = setting(False, help="whether to say nothing")
    colour: str = setting("red", choices=("red", "blue"), help="which colour")
    target: Literal["near", "far"] = setting("near", help="where to")
    order: Literal[1, 2] = setting(2, help="of the solver")
    limit: float | None = setting(None, min=0, help="where to stop")
    label: Optional[str] = setting(None, help="what to call it")  # noqa: UP045
    words: tuple[str, ...] = setting((), help="which words")
    layers: tuple[int, ...] = setting((1,), min=0, max=9, help="which layers")
    rates: tuple[float, ...] = setting((0.5, 1), help="one per layer")


def described(name: str) -> Any:
    return {entry.name: entry for entry in describe(Painter)}[name]


def test_settings_are_listed_in_the_order_of_the_fields() -> None:
    names = "steps rate quiet colour target order limit label words layers rates"
    assert [entry.name for entry in describe(Painter)] == names.split()


def test_a_setting_tells_its_help_bounds_and_default() -> None:
    steps = described("steps")
    assert (steps.help, steps.min, steps.max, steps.default) == ("how many steps", 1, 100, 10)


def test_the_choices_of_a_literal_are_its_values() -> None:
    assert described("target").choices == ("near", "far")
    assert described("colour").choices == ("red", "blue")
    assert described("rate").choices is None


def test_types_are_spelled_for_people() -> None:
    spelled = [entry.type for entry in describe(Painter)]
    assert spelled == [
        "int",
        "float",
        "bool",
        "str",
        "near | far",
        "1 | 2",
        "float | none",
        "str | none",
        "str, ...",
        "int, ...",
        "float, ...",
    ]


@pytest.mark.parametrize(
    ("name", "word", "value"),
    [
        ("steps", "7", 7),
        ("rate", "0.25", 0.25),
        ("rate", "1e-3", 0.001),
        ("rate", 2, 2.0),
        ("quiet", "true", True),
        ("quiet", "Off", False),
        ("quiet", True, True),
        ("colour", "blue", "blue"),
        ("target", "far", "far"),
        ("order", "1", 1),
        ("limit", "none", None),
        ("limit", None, None),
        ("limit", "3", 3.0),
        ("label", "none", None),
        ("label", "mine", "mine"),
        ("words", "a, b", ("a", "b")),
        ("words", "", ()),
        ("words", ["a", "b"], ("a", "b")),
        ("layers", "1,2", (1, 2)),
        ("rates", "1,0.5", (1.0, 0.5)),
    ],
)
def test_the_words_of_a_command_line_become_values(name: str, word: object, value: object) -> None:
    built = getattr(build(Painter, {name: word}), name)
    assert built == value
    assert type(built) is type(value)


@pytest.mark.parametrize(
    ("name", "word", "says"),
    [
        ("steps", "many", "Setting 'steps' of painter must be a whole number, not 'many'"),
        ("steps", "1.5", "must be a whole number"),
        ("steps", 1.5, "must be a whole number"),
        ("steps", True, "must be a whole number, not True"),
        ("steps", "9" * 5000, "must be a whole number"),
        ("steps", None, "must be a whole number"),
        ("steps", "0", "must be at least 1, not '0'"),
        ("steps", 101, "must be at most 100, not 101"),
        ("rate", "nan", "must be a finite number, not 'nan'"),
        ("rate", "inf", "must be a finite number"),
        ("rate", 10**400, "must be a number"),
        ("rate", "-0.1", "must be at least 0, not '-0.1'"),
        ("rate", False, "must be a number, not False"),
        ("quiet", "maybe", "must be true or false, not 'maybe'"),
        ("quiet", 1, "must be true or false, not 1"),
        ("colour", "green", "must be one of red, blue, not 'green'"),
        ("colour", 3, "must be text, not 3"),
        ("target", "none", "must be one of near, far, not 'none'"),
        ("order", True, "must be one of 1, 2, not True"),
        ("limit", "-1", "must be at least 0"),
        ("words", 3, "must be a list, not 3"),
        ("words", ["a", 3], "must be text"),
        ("layers", "1,ten", "must be a whole number"),
        ("layers", "1,10", "must be at most 9"),
        ("rates", [0.5, float("nan")], "must be a finite number"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(name: str, word: object, says: str) -> None:
    with pytest.raises(BadSetting) as refused:
        build(Painter, {name: word})
    assert says in str(refused.value)


def test_an_unknown_setting_gets_the_nearest_one_suggested() -> None:
    with pytest.raises(BadSetting) as refused:
        build(Painter, {"step": 3})
    assert str(refused.value) == (
        "painter: No setting 'step'; it has: colour, label, layers, limit, order, quiet, rate, rates, steps, "
        "target, words. Did you mean 'steps'?"
    )


def test_what_as_dict_writes_build_reads() -> None:
    painter = Painter(rate=0.25, words=("a", "b"), limit=3)
    assert build(Painter, json.loads(json.dumps(as_dict(painter)))) == painter


def test_as_dict_writes_values_in_their_declared_type() -> None:
    written = as_dict(Painter(rate=1, layers=(2, 3)))
    assert (written["rate"], written["layers"]) == (1.0, [2, 3])
    assert type(written["rate"]) is float


def test_as_dict_refuses_what_build_would_have_refused() -> None:
    with pytest.raises(BadSetting, match="'steps' of painter must be at least 1, not 0"):
        as_dict(Painter(steps=0))


def test_a_methods_own_objection_is_a_bad_setting() -> None:
    @dataclass(frozen=True)
    class Picky:
        low: int = setting(1, help="lower end")
        high: int = setting(2, help="upper end")

        def __post_init__(self) -> None:
            if self.low > self.high:
                raise ValueError("low must not exceed high")

    with pytest.raises(BadSetting, match="Picky: low must not exceed high"):
        build(Picky, {"low": 3})


def test_a_preset_is_a_set_of_values() -> None:
    assert build(Painter, preset(Painter, "paper")) == Painter(rate=0.1, layers=(1, 2))


def test_an_unknown_preset_lists_the_ones_there_are() -> None:
    with pytest.raises(BadSetting, match=r"painter: No preset 'fast'; it has: paper\."):
        preset(Painter, "fast")


def test_a_method_without_settings_has_none() -> None:
    @dataclass(frozen=True)
    class Plain:
        pass

    assert describe(Plain) == []
    assert as_dict(build(Plain, {})) == {}
    with pytest.raises(BadSetting, match="Plain: No setting 'rate'; it has: none"):
        build(Plain, {"rate": 1})


@dataclass(frozen=True)
class Unhelpful:
    rate: float = 0.5


@dataclass(frozen=True)
class Wordless:
    rate: float = setting(0.5, help=" ")


@dataclass(frozen=True)
class Nested:
    rates: dict[str, float] = setting(None, help="rates")  # type: ignore[arg-type]  # noqa: RUF009


@dataclass(frozen=True)
class Either:
    rate: int | str = setting(1, help="rate")


@dataclass(frozen=True)
class Pair:
    rates: tuple[int, int] = setting((1, 2), help="rates")


@dataclass(frozen=True)
class OutOfBounds:
    rate: float = setting(0.5, min=1, help="rate")


@dataclass(frozen=True)
class BoundedWord:
    word: str = setting("a", min=1, help="word")


@dataclass(frozen=True)
class Dangling:
    rate: Nowhere = setting(1, help="rate")  # type: ignore[name-defined]  # noqa: F821, RUF009


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (Unhelpful, "Setting 'rate' of Unhelpful has no help; declare it as rate = efface.setting(default, help=...)"),
        (Wordless, "Setting 'rate' of Wordless has no help"),
        (Nested, "Setting 'rates' of Nested has the type dict[str, float]; supported: int, float"),
        (Either, "Setting 'rate' of Either has the type int | str; supported"),
        (Pair, "Setting 'rates' of Pair has the type tuple[int, int]; supported"),
        (OutOfBounds, "Setting 'rate' of OutOfBounds must be at least 1, not its own default 0.5"),
        (BoundedWord, "Setting 'word' of BoundedWord has bounds, but its type str is not a number"),
        (Dangling, "The types of Dangling cannot be read: name 'Nowhere' is not defined"),
        (int, "<class 'int'> is not a dataclass"),
    ],
)
def test_a_setting_declared_wrongly_is_the_plugins_fault(wrong: type, says: str) -> None:
    with pytest.raises(PluginError) as refused:
        describe(wrong)
    assert says in str(refused.value)
