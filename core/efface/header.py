"""What an erasure says about itself: everything but the numbers."""

from __future__ import annotations

import json
import math
import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from efface.concept import Request
from efface.errors import BadArtifact, EffaceError
from efface.method import METHOD_NAME, SEEDS

FORMAT = 1
DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")

_DISTRIBUTION = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*|")
_VERSION = re.compile(r"[A-Za-z0-9]+([.+!_-][A-Za-z0-9]+)*|")
_POINT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*")
_TENSOR = re.compile(r"[A-Za-z0-9][A-Za-z0-9_:-]*(\.[A-Za-z0-9_:-]+)*")
_LONGEST_NAME = 200
_LONGEST_SHOWN = 80
_DEEPEST = 32

T = TypeVar("T")


@dataclass(frozen=True)
class TensorSpec:
    """The form of one tensor: its shape and the name of its dtype, as in `float32`."""

    shape: tuple[int, ...]
    dtype: str

    def to_json(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "dtype": self.dtype}


@dataclass(frozen=True)
class Header:
    """Where an erasure comes from and what it needs: enough to check it, show it and apply it again.

    `distribution` and `version` say which plugin brought the method ("" for a method of no installed plugin).
    `base` is the fingerprint of the model it was made for. `facts` are needed to apply it, `report` is for people.
    `tensors` lists the numbers that belong to it. JSON all through; BadArtifact names the first field at fault.
    """

    method: str
    distribution: str
    version: str
    settings: dict[str, Any]
    request: Request
    base: dict[str, Any]
    points: tuple[str, ...]
    seed: int
    libraries: dict[str, str]
    facts: dict[str, Any]
    report: dict[str, Any]
    tensors: dict[str, TensorSpec]

    def __post_init__(self) -> None:
        _named("method", self.method, METHOD_NAME)
        _named("distribution", self.distribution, _DISTRIBUTION)
        _named("version", self.version, _VERSION)
        for point in self.points:
            _named("points", point, _POINT)
        for name, spec in self.tensors.items():
            _named("tensors", name, _TENSOR)
            _check_spec(name, spec)
        if not _whole(self.seed) or self.seed not in SEEDS:
            raise _fault("seed", f"a whole number from 0 to {SEEDS[-1]}", self.seed)
        for field in ("settings", "base", "libraries", "facts", "report"):
            object.__setattr__(self, field, plain(getattr(self, field), field))

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "method": self.method,
            "distribution": self.distribution,
            "version": self.version,
            "settings": self.settings,
            "request": self.request.to_json(),
            "base": self.base,
            "points": list(self.points),
            "seed": self.seed,
            "libraries": self.libraries,
            "facts": self.facts,
            "report": self.report,
            "tensors": {name: spec.to_json() for name, spec in sorted(self.tensors.items())},
        }

    @classmethod
    def from_json(cls, data: object) -> Header:
        """The header that `to_json` wrote: every field, no other one, each in the very form it was written in."""
        fields = _object("header", data)
        _check_format(fields.get("format"))
        _check_names(fields)
        header = cls(
            method=_typed("method", fields["method"], str),
            distribution=_typed("distribution", fields["distribution"], str),
            version=_typed("version", fields["version"], str),
            settings=_object("settings", fields["settings"]),
            request=_request(fields["request"]),
            base=_object("base", fields["base"]),
            points=tuple(_list("points", fields["points"], str)),
            seed=_typed("seed", fields["seed"], int),
            libraries=_texts("libraries", fields["libraries"]),
            facts=_object("facts", fields["facts"]),
            report=_object("report", fields["report"]),
            tensors={name: _spec(name, spec) for name, spec in _object("tensors", fields["tensors"]).items()},
        )
        _check_unchanged(header.to_json(), fields)
        return header


def canonical_json(data: Mapping[str, Any]) -> str:
    """The one text for this JSON: sorted keys, no spaces, ASCII."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)


def strict_json(text: str | bytes, what: str) -> Any:
    """The JSON in a text, without NaN, without one key twice; BadArtifact if it is not that."""
    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadArtifact(f"{what} is not JSON: {error}") from error


def plain(value: Any, where: str, depth: int = 0) -> Any:
    """A copy of the value in nothing but JSON types; BadArtifact says where it is something else."""
    if depth > _DEEPEST:
        raise _fault(where, f"nested at most {_DEEPEST} deep", value)
    if value is None or type(value) in (str, bool):
        return value
    if _whole(value) and -(2**63) <= value < 2**64:
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if isinstance(value, list | tuple):
        return [plain(item, f"{where}[{index}]", depth + 1) for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        return {_key(key, where): plain(item, f"{where}.{key}", depth + 1) for key, item in value.items()}
    raise _fault(where, "JSON with finite numbers", value)


def _key(key: object, where: str) -> str:
    if type(key) is not str:
        raise _fault(where, "an object with texts as keys", key)
    return key


def shown(name: str) -> str:
    """A name from a file as an error message may print it: quoted, escaped, and not too long."""
    return repr(name if len(name) <= _LONGEST_SHOWN else f"{name[:_LONGEST_SHOWN]}...")


def _fault(field: str, wanted: str, value: object) -> BadArtifact:
    return BadArtifact(f"header field {shown(field)} must be {wanted}, not {reprlib.repr(value)}")


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _named(field: str, name: object, pattern: re.Pattern[str]) -> None:
    if not isinstance(name, str) or len(name) > _LONGEST_NAME or not pattern.fullmatch(name):
        raise _fault(field, "a plain name", name)


def _check_spec(name: str, spec: TensorSpec) -> None:
    if spec.dtype not in DTYPES:
        raise _fault(f"tensors.{name}", f"one of the dtypes {', '.join(DTYPES)}", spec.dtype)
    if not all(_whole(size) and size >= 0 for size in spec.shape):
        raise _fault(f"tensors.{name}", "a shape", spec.shape)


def _check_format(found: object) -> None:
    if not isinstance(found, int) or isinstance(found, bool):
        raise _fault("format", "a whole number", found)
    if found > FORMAT:
        raise BadArtifact(f"written by a newer efface: format {found}, this one reads {FORMAT}")
    if found != FORMAT:
        raise _fault("format", str(FORMAT), found)


_FIELDS = ("format", *Header.__dataclass_fields__)


def _check_names(fields: Mapping[str, Any]) -> None:
    for name in _FIELDS:
        if name not in fields:
            raise BadArtifact(f"header field {name!r} is missing")
    for name in fields:
        if name not in _FIELDS:
            raise BadArtifact(f"header field {shown(name)} is unknown; format {FORMAT} has: {', '.join(_FIELDS)}")


def _check_unchanged(read: Mapping[str, Any], fields: Mapping[str, Any]) -> None:
    for name, value in fields.items():
        if canonical_json({name: value}) != canonical_json({name: read[name]}):
            raise BadArtifact(f"header field {name!r} is not in the form that efface writes")


def _typed(field: str, value: object, wanted: type[T]) -> T:
    if type(value) is not wanted:
        raise _fault(field, "text" if wanted is str else "a whole number", value)
    return value


def _list(field: str, value: object, wanted: type[T]) -> list[T]:
    if not isinstance(value, list):
        raise _fault(field, "a list", value)
    return [_typed(field, item, wanted) for item in value]


def _object(field: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _fault(field, "an object", value)
    return value


def _texts(field: str, value: object) -> dict[str, str]:
    return {name: _typed(field, text, str) for name, text in _object(field, value).items()}


def _request(value: object) -> Request:
    try:
        return Request.from_json(value)
    except EffaceError as error:
        raise BadArtifact(f"header field 'request': {error}") from error


def _spec(name: str, value: object) -> TensorSpec:
    fields = _object(f"tensors.{name}", value)
    if set(fields) != {"shape", "dtype"}:
        raise _fault(f"tensors.{name}", "an object with shape and dtype", value)
    shape = _list(f"tensors.{name}", fields["shape"], int)
    return TensorSpec(tuple(shape), _typed(f"tensors.{name}", fields["dtype"], str))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _no_constant(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON number")
