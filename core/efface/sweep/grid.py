"""What a sweep is made of, read from a TOML file."""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from efface.concept import Concept, Request
from efface.errors import EffaceError, unknown
from efface.method import SEEDS, Method
from efface.registry import Registry
from efface.settings import build
from efface.settings import preset as preset_of
from efface.suite import configured

TOP = ("model", "config", "device", "dtype", "seed", "evaluation", "methods", "concepts")
MEASURE = ("suite", "suite_settings", "seeds", "steps", "guidance", "batch_size")
METHOD = ("method", "preset", "settings")
CONCEPT = ("concept", "anchor", "synonyms", "kind", "keep", "templates")
PRECISIONS = ("float32", "float16", "bfloat16")


@dataclass(frozen=True)
class Opening:
    """The model of a sweep, and how it is loaded."""

    model: str
    config: str | None = None
    device: str = "cpu"
    dtype: str = "float32"


@dataclass(frozen=True)
class Measure:
    """How every erasure is evaluated; what is None is the suite's."""

    suite: str | None = None
    suite_settings: Mapping[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = tuple(range(50))
    steps: int = 15
    guidance: float | None = None
    batch_size: int = 10


@dataclass(frozen=True)
class Cell:
    """One erasure to fit and to evaluate: a method with the settings that are not its defaults, and a request.

    `where` is the table of the grid that has the concept, for errors.
    """

    method: str
    preset: str | None
    settings: Mapping[str, Any]
    request: Request
    seed: int
    where: str = field(default="", compare=False)

    @property
    def concept(self) -> str:
        return self.request.concepts[0].text

    def built(self, registry: Registry) -> Method:
        return _built(registry, self.method, self.preset, self.settings)

    def to_json(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "preset": self.preset,
            "settings": dict(self.settings),
            "request": self.request.to_json(),
            "seed": self.seed,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Cell:
        return cls(**{**data, "request": Request.from_json(data["request"])})


@dataclass(frozen=True)
class Grid:
    """Every method with each of its settings on every concept, one cell each, concept by concept, from a file."""

    opening: Opening
    measure: Measure
    cells: tuple[Cell, ...]
    file: str

    @classmethod
    def read(cls, file: str | os.PathLike[str], registry: Registry) -> Grid:
        """The grid in a TOML file, whose methods and suite are the registry's.

        EffaceError names the file, the table and what is wrong in it.
        """
        name = os.fspath(file)
        with located(name):
            try:
                data = tomllib.loads(Path(file).read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
                raise EffaceError(f"Cannot read a grid: {error}") from error
            return _grid(data, name, registry)


@contextmanager
def located(*where: str) -> Iterator[None]:
    """Errors say where: in which file, in which table."""
    try:
        yield
    except EffaceError as error:
        raise EffaceError(": ".join([*where, str(error)])) from error


def _grid(data: Mapping[str, Any], file: str, registry: Registry) -> Grid:
    top = _Table(data, "grid", TOP)
    seed = top.number("seed", int, 0, 0, SEEDS[-1])
    methods = [_variants(table, registry) for table in top.tables("methods", METHOD)]
    requests = [(_request(table), table.where) for table in top.tables("concepts", CONCEPT)]
    variants = [variant for found in methods for variant in found]
    cells = [Cell(*variant, request, seed, where) for request, where in requests for variant in variants]
    return Grid(_opening(top), _measure(top, registry), tuple(cells), file)


def _opening(top: _Table) -> Opening:
    return Opening(
        top.take("model", str),
        top.take("config", str, None),
        top.take("device", str, "cpu"),
        top.chosen("dtype", PRECISIONS, "float32"),
    )


def _measure(top: _Table, registry: Registry) -> Measure:
    table = _Table(top.take("evaluation", dict, {}), "[evaluation]", MEASURE)
    usual = Measure()
    found = Measure(
        suite=table.take("suite", str, None),
        suite_settings=table.take("suite_settings", dict, {}),
        seeds=_seeds(table),
        steps=table.number("steps", int, usual.steps, 1),
        guidance=table.number("guidance", (int, float), None, 0),
        batch_size=table.number("batch_size", int, usual.batch_size, 1),
    )
    with located(table.where):
        if found.suite is not None:
            configured(registry.suite(found.suite), found.suite_settings)
    return found


def _seeds(table: _Table) -> tuple[int, ...]:
    """So many from 0, or those that are listed."""
    given = table.take("seeds", (int, list), 50)
    seeds = tuple(range(given)) if isinstance(given, int) else tuple(given)
    if not seeds or len(set(seeds)) < len(seeds) or not all(type(seed) is int and seed in SEEDS for seed in seeds):
        raise EffaceError(f"{table.where}: 'seeds' is a number of seeds or a list of different ones, not {given!r}")
    return seeds


def _variants(table: _Table, registry: Registry) -> Sequence[tuple[str, str | None, dict[str, Any]]]:
    """The method with each of its settings, every one built once: of lists each value in turn, in every combination."""
    settings = table.take("settings", dict, {})
    for name, value in settings.items():
        if value == []:
            raise EffaceError(
                f"{table.where}: setting {name!r} has no value to try: its list is empty "
                "(leave the setting out for its default; one value that is an empty list is [[]])"
            )
    values = [value if isinstance(value, list) else [value] for value in settings.values()]
    name, preset = table.take("method", str), table.take("preset", str, None)
    found = [(name, preset, dict(zip(settings, chosen, strict=True))) for chosen in product(*values)]
    with located(table.where):
        for variant in found:
            _built(registry, *variant)
    return found


def _built(registry: Registry, name: str, preset: str | None, settings: Mapping[str, Any]) -> Method:
    cls = registry.method(name)
    values: Mapping[str, object] = preset_of(cls, preset) if preset else {}
    return build(cls, {**values, **settings})


def _request(table: _Table) -> Request:
    text = table.take("concept", str)
    with located(table.where):
        concept = Concept.from_json({"text": text} | _part(table.given, "anchor", "synonyms", "kind"))
        return Request.from_json({"concepts": [concept.to_json()]} | _part(table.given, "keep", "templates"))


def _part(given: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: given[name] for name in names if name in given}


@dataclass(frozen=True)
class _Table:
    """A table of the file, with the keys that it may have; EffaceError for another key or another sort of value."""

    given: Mapping[str, Any]
    where: str
    known: tuple[str, ...]

    def __post_init__(self) -> None:
        for name in self.given:
            if name not in self.known:
                raise EffaceError(f"{self.where}: {unknown('key', name, self.known, 'there are')}")

    def take(self, name: str, kind: type | tuple[type, ...], *default: Any) -> Any:
        """The value; without a default it has to be there."""
        if name not in self.given:
            if not default:
                raise EffaceError(f"{self.where} needs {name!r}")
            return default[0]
        value = self.given[name]
        if isinstance(value, bool) or not isinstance(value, kind):
            raise EffaceError(f"{self.where}: {name!r} cannot be {value!r}")
        return value

    def number(
        self, name: str, kind: type | tuple[type, ...], default: Any, least: int, most: float = sys.float_info.max
    ) -> Any:
        """The value where it is in its range, both ends in it."""
        value = self.take(name, kind, default)
        if name in self.given and not least <= value <= most:
            up = f"from {least} to {most}" if isinstance(most, int) else f"of {least} or more"
            raise EffaceError(f"{self.where}: {name!r} is a {'whole ' * (kind is int)}number {up}, not {value!r}")
        return value

    def chosen(self, name: str, choices: tuple[str, ...], default: str) -> str:
        value: str = self.take(name, str, default)
        if value not in choices:
            raise EffaceError(f"{self.where}: {unknown(name, value, choices, 'there are')}")
        return value

    def tables(self, name: str, known: tuple[str, ...]) -> Iterator[_Table]:
        found = self.take(name, list)
        if not found or not all(isinstance(one, dict) for one in found):
            raise EffaceError(f"{self.where} needs at least one [[{name}]]")
        return (_Table(one, f"[[{name}]] {index}", known) for index, one in enumerate(found, 1))
