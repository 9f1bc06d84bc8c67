"""What a method does changes with the source around it, and with no other."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from efface.evaluation.code import source_digest

CLASS = "class Method: ...\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a module of one file, and a package with one below it."""
    files = {"code_alone.py": CLASS, "code_package/__init__.py": "", "code_package/deep/__init__.py": ""}
    for name, text in (files | {"code_package/deep/method.py": CLASS, "code_package/maths.py": ""}).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("code_"):
            del sys.modules[name]


def method(module: str) -> Any:
    return importlib.import_module(module).Method


@pytest.mark.parametrize(
    ("module", "counts"),
    [
        ("code_alone", {"code_alone.py"}),
        ("code_package.deep.method", {"code_package/maths.py", "code_package/deep/method.py", "code_package/new.py"}),
    ],
)
def test_the_digest_covers_the_package_or_the_one_file(folder: Path, module: str, counts: set[str]) -> None:
    cls = method(module)
    for name in ("code_alone.py", "code_package/maths.py", "code_package/deep/method.py", "code_package/new.py"):
        before = source_digest(cls)
        with (folder / name).open("a") as file:
            file.write("# more\n")
        assert (source_digest(cls) != before) == (name in counts), name


def test_a_class_without_a_file_has_none() -> None:
    names: dict[str, Any] = {"__name__": "nowhere"}
    exec(CLASS, names)
    assert source_digest(names["Method"]) == ""
