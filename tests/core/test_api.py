"""The public API is the one that is written down: a break is a decision, and growing is noticed.

`python tests/core/test_api.py` writes the listing anew.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import efface
from efface import erasure, header, hookspecs, registry
from efface.cli import extensions
from efface.testing import FAMILIES, MethodTests, tiny_pipeline
from efface_hooks.patch import PROJECTION_TAKES, TAKES

LISTING = Path(__file__).with_name("api.txt")
OURS = ("efface", "efface_hooks")
ACCEPT = """
What is public stays as it is until a release that may break it (docs/plugins/api.md says when). If this change is
meant, accept it with `python tests/core/test_api.py` and commit tests/core/api.txt with it."""


def listing() -> str:
    parts = {
        "efface": names_of("efface"),
        "efface.solver": names_of("efface.solver"),
        "efface.testing": [
            *names_of("efface.testing"),
            *(f"promise {name}" for name in sorted(MethodTests.promises())),
        ],
        "hooks": [signed(name, spec) for name, spec in sorted(specs().items())],
        "hook points": points(),
        "the file of an erasure": file_format(),
        "entry points and environment": [
            f"group {registry.GROUP}",
            f"group {extensions.GROUP}",
            f"variable {registry.LOAD}",
            f"variable {registry.DISABLE}",
        ],
    }
    return "\n".join(f"# {title}\n" + "\n".join(lines) + "\n" for title, lines in parts.items())


def names_of(package: str) -> list[str]:
    module = importlib.import_module(package)
    return [line for name in sorted(module.__all__) for line in described(name, getattr(module, name))]


def described(name: str, item: Any) -> Iterator[str]:
    """One line for a function or a value; for a class one more for each public member."""
    if inspect.isclass(item):
        bases = ", ".join(base.__name__ for base in item.__bases__ if base is not object)
        yield f"class {name}({bases})" if bases else f"class {name}"
        yield from (f"  {name}.{line}" for line in members(item))
    elif inspect.isfunction(item):
        yield f"def {signed(name, item)}"
    elif isinstance(item, str | int | float | tuple):
        yield f"{name} = {item!r}"
    else:
        yield f"{name}: {getattr(item, '__name__', type(item).__name__)}"


def members(cls: type) -> Iterator[str]:
    if "__init__" in vars(cls) and not getattr(cls, "_is_protocol", False):
        yield signed("__init__", cls.__init__)  # type: ignore[misc]
    known = [base for base in cls.__mro__ if base.__module__.partition(".")[0] in OURS]
    fields = {field.name for field in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()
    found = {name: (base, value) for base in reversed(known) for name, value in own(base)}
    for name, (base, value) in sorted(found.items()):
        if base is cls or not inspect.isfunction(value):
            yield from () if name in fields else [member(name, value)]


def own(cls: type) -> Iterator[tuple[str, Any]]:
    """What a class declares itself, annotated names without a value too."""
    for name in {**inspect.get_annotations(cls), **vars(cls)}:
        if not name.startswith(("_", "test_")) and name != "pytest_generate_tests":
            yield name, vars(cls).get(name)


def member(name: str, value: Any) -> str:
    if isinstance(value, property):
        return f"{name}{returned(value.fget)}"
    if isinstance(value, classmethod | staticmethod):
        return f"{type(value).__name__} {signed(name, value.__func__)}"
    return signed(name, value) if inspect.isfunction(value) else name


def returned(function: Any) -> str:
    return f" -> {inspect.get_annotations(function).get('return', 'Any')}"


def signed(name: str, function: Any) -> str:
    """The call as it is written in the source, without the addresses of functions."""
    found = inspect.signature(function)
    parameters = [one.replace(annotation=Verbatim.of(one.annotation)) for one in found.parameters.values()]
    text = str(found.replace(parameters=parameters, return_annotation=Verbatim.of(found.return_annotation)))
    return name + re.sub(r"<function (\w+) at 0x\w+>", r"\1", text)


@dataclasses.dataclass(frozen=True)
class Verbatim:
    """An annotation that a signature shows without quotes."""

    text: str

    @classmethod
    def of(cls, annotation: Any) -> Any:
        return cls(annotation) if isinstance(annotation, str) else annotation

    def __repr__(self) -> str:
        return self.text


def specs() -> dict[str, Any]:
    return {name: spec for name, spec in vars(hookspecs).items() if hasattr(spec, f"{hookspecs.PROJECT}_spec")}


def points() -> list[str]:
    """Every kind with its verbs, and the names on every family, a run of numbers as N."""
    found = {family: efface.points(tiny_pipeline(family)) for family in FAMILIES}
    kinds = sorted({point.kind for all_points in found.values() for point in all_points} | {"weight"})
    lines = [f"kind {kind} takes {', '.join(TAKES.get(kind, PROJECTION_TAKES))}" for kind in kinds]
    for family, all_points in found.items():
        names = sorted({re.sub(r"\.\d+(?=\.|$)", ".N", point.name) for point in all_points})
        lines += [f"{family} {name}" for name in names]
    return lines


def file_format() -> list[str]:
    fields = ["format", *(field.name for field in dataclasses.fields(header.Header)), "sha256"]
    return [
        f"format {header.FORMAT}",
        f"metadata {erasure.METADATA_KEY}",
        *(f"field {name}" for name in fields),
        *(f"dtype {name}" for name in header.DTYPES),
    ]


def difference(written: str, found: str) -> str:
    """What of the listing is gone or changed, and what is new, in words; "" if nothing is."""
    lines = list(difflib.ndiff(written.splitlines(), found.splitlines()))
    gone, new = ([line[2:].strip() for line in lines if line.startswith(sign)] for sign in "-+")
    parts = [f"{what}:\n  " + "\n  ".join(some) for what, some in (("gone or changed", gone), ("new", new)) if some]
    return "The public API is not the one in tests/core/api.txt.\n" + "\n".join(parts) + ACCEPT if parts else ""


def test_the_public_api_is_the_one_that_is_written_down() -> None:
    told = difference(LISTING.read_text(encoding="utf-8"), listing())
    assert not told, told


def test_a_change_is_told_with_the_way_to_accept_it() -> None:
    told = difference("def points(pipe)\nclass Editor\n", "def points(pipe, kind)\nclass Editor\nclass Plan\n")
    assert "gone or changed:\n  def points(pipe)\nnew:\n  def points(pipe, kind)\n  class Plan\n" in told
    assert "python tests/core/test_api.py" in told
    assert difference("class Editor\n", "class Editor\n") == ""


@pytest.mark.parametrize(
    "line",
    [
        "  Editor.__init__(self, pipe: Any, *erasures: Erasure, ",
        "  Editor.staticmethod of(pipe: Any) -> Editor | None",
        "  Call.sample -> Tensor",
        "  Run.__init__(self, seed: int = 0, progress: Progress = silent, folder: Path | None = None, processes: ",
        "  Method.fit(self, model: Model, request: Request, run: Run) -> Fit",
        "  Method.name",
        "class BadEdit(HookError)",
        "efface_points(pipe: Any) -> list[HookPoint]",
        "kind skip takes output",
        "sdxl unet.skip.N",
        "sdxl text_encoder_2.layers.N.mlp.fc2",
        "format 1",
        "promise test_edit_acts",
        "  MethodTests.fuses",
    ],
)
def test_the_listing_has(line: str) -> None:
    assert any(found.startswith(line) for found in LISTING.read_text(encoding="utf-8").splitlines()), line


if __name__ == "__main__":
    LISTING.write_text(listing(), encoding="utf-8")
