"""Hyper-parameters: dataclass fields that know their help, bounds and choices.

A method's fields are its settings. The command line, the header of an erasure, the documentation and forms are
derived from what this file reads off them. A method may also name some sets of values:
`presets: ClassVar[Mapping[str, Mapping[str, object]]]`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from efface.errors import BadSetting, PluginError, unknown

T = TypeVar("T")

_METADATA = "efface"
_SUPPORTED = "int, float, bool, str, Literal, tuple[str, ...], tuple[int, ...], tuple[float, ...], and X | None"
_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is known about one hyper-parameter; bounds are inclusive, in a tuple they hold for every item."""

    name: str
    annotation: Any
    default: object
    help: str
    min: float | None = None
    max: float | None = None
    choices: tuple[object, ...] | None = None

    @property
    def type(self) -> str:
        """The type as people read it: `float`, `float | none`, `str, ...`, `near | far`."""
        return _spelled(self.annotation)

    def read(self, value: object) -> object:
        """The value in the declared type, from Python, JSON or the words of a command line.

        Raises ValueError with what was expected instead.
        """
        result = _read(value, self.annotation)
        for item in result if isinstance(result, tuple) else (result,):
            self._check(item)
        return result

    def _check(self, item: object) -> None:
        if item is None:
            return
        if self.choices is not None and item not in self.choices:
            raise ValueError(f"one of {', '.join(map(str, self.choices))}")
        if self.min is not None and cast(float, item) < self.min:
            raise ValueError(f"at least {self.min}")
        if self.max is not None and cast(float, item) > self.max:
            raise ValueError(f"at most {self.max}")


def setting(
    default: T,
    *,
    help: str,  # noqa: A002
    min: float | None = None,  # noqa: A002
    max: float | None = None,  # noqa: A002
    choices: Sequence[object] | None = None,
) -> T:
    """A field of a method's dataclass: its default, a line of help, and what it may be."""
    known = {"help": help, "min": min, "max": max, "choices": None if choices is None else tuple(choices)}
    return dataclasses.field(default=default, metadata={_METADATA: known})


def describe(method_class: type) -> list[Setting]:
    """The settings of a method in the order of its fields; PluginError if one is declared wrongly."""
    hints = _hints(method_class)
    declared = [field for field in dataclasses.fields(method_class) if field.init]
    return [_described(method_class, field, hints[field.name]) for field in declared]


def build(method_class: type[T], values: Mapping[str, object]) -> T:
    """The method with these settings; BadSetting for an unknown name or a value it cannot take."""
    settings = {entry.name: entry for entry in describe(method_class)}
    for name in values:
        if name not in settings:
            raise BadSetting(f"{_name(method_class)}: {unknown('setting', name, settings, 'it has')}")
    read = {name: _value(method_class, settings[name], value) for name, value in values.items()}
    try:
        return method_class(**read)
    except (TypeError, ValueError) as error:
        raise BadSetting(f"{_name(method_class)}: {error}") from error


def preset(method_class: type, name: str) -> dict[str, object]:
    """The values of one of the method's presets; BadSetting lists the ones there are."""
    presets: Mapping[str, Mapping[str, object]] = getattr(method_class, "presets", {})
    if name not in presets:
        raise BadSetting(f"{_name(method_class)}: {unknown('preset', name, presets, 'it has')}")
    return dict(presets[name])


def as_dict(method: object) -> dict[str, Any]:
    """The settings of a method as JSON values, checked as `build` checks them."""
    cls = type(method)
    read = {entry.name: _value(cls, entry, getattr(method, entry.name)) for entry in describe(cls)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in read.items()}


def _name(method_class: type) -> str:
    return str(getattr(method_class, "name", method_class.__name__))


def _value(method_class: type, entry: Setting, value: object) -> object:
    try:
        return entry.read(value)
    except ValueError as expected:
        raise BadSetting(
            f"Setting {entry.name!r} of {_name(method_class)} must be {expected}, not {value!r}"
        ) from expected


def _hints(method_class: type) -> dict[str, Any]:
    if not isinstance(method_class, type) or not dataclasses.is_dataclass(method_class):
        raise PluginError(f"{method_class!r} is not a dataclass; a method's settings are its fields")
    try:
        return get_type_hints(method_class)
    except (NameError, TypeError) as error:
        raise PluginError(
            f"The types of {_name(method_class)} cannot be read: {error}; import them outside TYPE_CHECKING"
        ) from error


def _described(method_class: type, field: dataclasses.Field[Any], annotation: Any) -> Setting:
    where = f"Setting {field.name!r} of {_name(method_class)}"
    known = field.metadata.get(_METADATA)
    if known is None or not str(known["help"]).strip():
        raise PluginError(f"{where} has no help; declare it as {field.name} = efface.setting(default, help=...)")
    if not _supported(annotation):
        raise PluginError(f"{where} has the type {annotation}; supported: {_SUPPORTED}")
    bounded = known["min"] is not None or known["max"] is not None
    if bounded and _item(annotation) not in (int, float):
        raise PluginError(f"{where} has bounds, but its type {_spelled(annotation)} is not a number")
    entry = Setting(field.name, annotation, field.default, **(known | {"choices": _choices(annotation, known)}))
    try:
        return dataclasses.replace(entry, default=entry.read(field.default))
    except ValueError as expected:
        raise PluginError(f"{where} must be {expected}, not its own default {field.default!r}") from expected


def _choices(annotation: Any, known: Mapping[str, Any]) -> tuple[object, ...] | None:
    inner = _item(annotation)
    literal = get_args(inner) if get_origin(inner) is Literal else None
    return literal if known["choices"] is None else known["choices"]


def _item(annotation: Any) -> Any:
    """The type of one value, without `| None` and without the tuple around it."""
    inner = _present(annotation)
    return get_args(inner)[0] if get_origin(inner) is tuple else inner


def _present(annotation: Any) -> Any:
    """X for X | None, anything else as it is."""
    arguments = get_args(annotation)
    if get_origin(annotation) in (Union, UnionType) and len(arguments) == 2 and NoneType in arguments:
        return arguments[0] if arguments[1] is NoneType else arguments[1]
    return annotation


def _supported(annotation: Any) -> bool:
    inner = _present(annotation)
    if get_origin(inner) is tuple:
        return get_args(inner) in ((int, ...), (float, ...), (str, ...))
    if get_origin(inner) is Literal:
        return all(isinstance(choice, str | int) for choice in get_args(inner))
    return inner in _READERS


def _spelled(annotation: Any) -> str:
    inner = _present(annotation)
    if inner is not annotation:
        return f"{_spelled(inner)} | none"
    if get_origin(inner) is Literal:
        return " | ".join(map(str, get_args(inner)))
    if get_origin(inner) is tuple:
        return f"{_spelled(get_args(inner)[0])}, ..."
    return str(getattr(inner, "__name__", inner))


def _read(value: object, annotation: Any) -> object:
    inner = _present(annotation)
    if inner is not annotation and (value is None or _word(value) == "none"):
        return None
    if get_origin(inner) is Literal:
        return _choice(value, get_args(inner))
    if get_origin(inner) is tuple:
        return tuple(_READERS[get_args(inner)[0]](item) for item in _items(value))
    return _READERS[inner](value)


def _word(value: object) -> str | None:
    return value.strip().lower() if isinstance(value, str) else None


def _items(value: object) -> Sequence[object]:
    if isinstance(value, str):
        return [item.strip() for item in value.split(",")] if value.strip() else []
    if isinstance(value, list | tuple):
        return value
    raise ValueError("a list")


def _choice(value: object, choices: tuple[object, ...]) -> object:
    for choice in choices:
        if type(value) is type(choice) and value == choice:
            return choice
        if isinstance(value, str) and value.strip() == str(choice):
            return choice
    raise ValueError(f"one of {', '.join(map(str, choices))}")


def _bool(value: object) -> bool:
    known = value if isinstance(value, bool) else _WORDS.get(_word(value) or "")
    if known is None:
        raise ValueError("true or false")
    return known


def _int(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("a whole number")
    try:
        return int(value)
    except ValueError:
        raise ValueError("a whole number") from None


def _float(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("a number")
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise ValueError("a number") from None
    if not math.isfinite(number):
        raise ValueError("a finite number")
    return number


def _str(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("text")
    return value


_READERS: Mapping[Any, Callable[[object], Any]] = {bool: _bool, int: _int, float: _float, str: _str}
