"""Who may know whom: what the packages of this repository import, say and promise."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
CORE, HOOKS = ROOT / "core" / "efface", ROOT / "hooks" / "efface_hooks"
DISTRIBUTIONS = sorted(
    folder.parent for pattern in ("plugins", "contrib") for folder in (ROOT / pattern).glob("*/pyproject.toml")
)
PLUGINS = [folder for folder in DISTRIBUTIONS if folder.name != "picturebook"]
HEAVY = {"diffusers", "transformers", "peft", "accelerate"}
SCIENCE = {"torch", "numpy", "PIL", "safetensors", "tokenizers", *HEAVY}


def sources(*folders: Path) -> list[Path]:
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(node: ast.AST) -> Iterator[str]:
    """Dotted names of all modules that are imported anywhere below a node."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Import):
            yield from (alias.name for alias in inner.names)
        elif isinstance(inner, ast.ImportFrom):
            assert inner.level == 0, "imports here are absolute"
            yield inner.module or ""


def packages(node: ast.AST) -> set[str]:
    return {name.partition(".")[0] for name in imports(node)}


def at_import(module: ast.Module) -> Iterator[ast.stmt]:
    """Statements that run when a module is imported."""
    for statement in module.body:
        guarded = isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING"
        if not guarded and not isinstance(statement, ast.FunctionDef | ast.ClassDef):
            yield statement


def strings(module: ast.Module) -> Iterator[ast.Constant]:
    """Every string but docstrings and the examples that commands show in their help."""
    left_out: set[int] = set()
    for node in ast.walk(module):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            left_out.add(id(body[0].value))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("command", "example"):
            left_out |= {id(argument) for argument in node.args}
    for node in ast.walk(module):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in left_out:
            yield node


def declared(folder: Path) -> set[str]:
    """The packages a distribution depends on, always or for one of its extras, by the names of its requirements."""
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [requirement for one in project.get("optional-dependencies", {}).values() for requirement in one]
    return {re.split(r"[^\w-]", name)[0].replace("-", "_") for name in [*project["dependencies"], *extras]}


def where(path: Path, node: ast.AST | None = None) -> str:
    line = f":{node.lineno}" if node is not None and hasattr(node, "lineno") else ""
    return f"{path.relative_to(ROOT)}{line}"


def test_there_is_something_to_look_at() -> None:
    assert len(sources(CORE)) > 20
    assert len(sources(HOOKS)) > 10
    assert {folder.name for folder in DISTRIBUTIONS} >= {"uce", "picturebook"}


# Who imports whom


def test_the_hooks_know_torch_and_nothing_else() -> None:
    allowed = {"efface_hooks", "torch", *sys.stdlib_module_names}
    for path in sources(HOOKS):
        assert packages(tree(path)) <= allowed, where(path)
        assert not [node for node in strings(tree(path)) if node.value.startswith("efface.")], where(path)


def test_core_knows_no_plugin() -> None:
    for path in sources(CORE):
        foreign = {name for name in packages(tree(path)) if name.startswith("efface_")} - {"efface_hooks"}
        assert not foreign, where(path)


def test_nothing_but_the_command_line_imports_the_command_line() -> None:
    for path in sources(CORE):
        if (CORE / "cli") not in path.parents and path.name != "__main__.py":
            assert not [name for name in imports(tree(path)) if name.startswith("efface.cli")], where(path)


def test_neither_core_nor_plugins_know_picturebook() -> None:
    for path in sources(CORE, HOOKS, *(folder / "src" for folder in PLUGINS)):
        told = [node for node in strings(tree(path)) if "picturebook" in node.value]
        assert not told, where(path, told[0] if told else None)
        names = {node.id for node in ast.walk(tree(path)) if isinstance(node, ast.Name)}
        assert not [name for name in names if "picturebook" in name.lower()], where(path)


@pytest.mark.parametrize("folder", DISTRIBUTIONS, ids=lambda folder: folder.name)
def test_a_plugin_imports_efface_and_what_it_declares_and_no_part_below(folder: Path) -> None:
    (own,) = (path.name for path in (folder / "src").iterdir() if path.is_dir())
    allowed = {own, *declared(folder), *SCIENCE, *sys.stdlib_module_names}
    assert "efface_hooks" not in allowed
    for path in sources(folder / "src"):
        assert packages(tree(path)) <= allowed, where(path)


def test_heavy_libraries_are_imported_where_they_are_used() -> None:
    for path in sources(CORE, HOOKS):
        for statement in at_import(tree(path)):
            assert not packages(statement) & HEAVY, where(path, statement)


# How a start goes


def loaded_by(statement: str, source: Path = ROOT) -> set[str]:
    """Top-level names of all modules there are after a statement in a fresh process."""
    code = f"import sys; {statement}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    environment = os.environ | {"PYTHONPATH": str(source)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=300
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement", ["import efface, efface_hooks", "import efface; efface.Registry.installed().plugins()"]
)
def test_importing_efface_imports_nothing_heavy(statement: str) -> None:
    assert not loaded_by(statement) & {"torch", "numpy", *HEAVY}


@pytest.mark.parametrize("folder", DISTRIBUTIONS, ids=lambda folder: folder.name)
def test_importing_a_plugin_imports_nothing_heavy(folder: Path) -> None:
    assert not loaded_by(f"import efface_{folder.name}", folder / "src") & {"torch", "numpy", *HEAVY}


@pytest.mark.parametrize("name", ["efface", "efface_hooks"])
def test_every_public_name_is_there(name: str) -> None:
    package = importlib.import_module(name)
    assert len(package.__all__) == len(set(package.__all__)) > 5
    for public in package.__all__:
        assert getattr(package, public) is not None
    with pytest.raises(AttributeError, match=f"module '{name}' has no attribute 'Nothing'"):
        _ = package.Nothing


@pytest.mark.parametrize("folder", [CORE, HOOKS], ids=lambda folder: folder.name)
def test_type_checkers_see_the_names_that_python_finds(folder: Path) -> None:
    module = tree(folder / "__init__.py")
    (guarded,) = (node for node in module.body if isinstance(node, ast.If))
    seen = {
        (alias.asname, node.module) for node in guarded.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    (table,) = (node for node in ast.walk(module) if isinstance(node, ast.Dict))
    found = {(name, source) for source, names in ast.literal_eval(table).items() for name in names.split()}
    assert seen == found
    assert sorted(importlib.import_module(folder.name).__all__) == sorted(name for name, _ in found)


# What libraries do not do


def test_no_device_is_named() -> None:
    for path in sources(CORE, HOOKS, *(folder / "src" for folder in PLUGINS)):
        named = [node for node in strings(tree(path)) if node.value == "cuda" or node.value.startswith("cuda:")]
        assert not named, where(path, named[0] if named else None)


def test_libraries_print_nothing() -> None:
    for path in sources(CORE, HOOKS, *(folder / "src" for folder in DISTRIBUTIONS)):
        if (CORE / "cli") in path.parents:
            continue
        for node in ast.walk(tree(path)):
            called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            assert not (called and node.func.id in ("print", "breakpoint", "pprint")), where(path, node)  # type: ignore[union-attr]


def test_every_file_says_in_its_first_line_what_it_is() -> None:
    for path in sources(CORE, HOOKS, *(folder / "src" for folder in DISTRIBUTIONS)):
        said = ast.get_docstring(tree(path)) or ""
        assert said.partition("\n")[0].endswith((".", ":", "?")), where(path)


# What a distribution looks like


def project(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))


def test_one_distribution_has_two_roots_with_one_package_each() -> None:
    build = project(ROOT)["tool"]["hatch"]["build"]
    assert build["dev-mode-dirs"] == ["core", "hooks"]
    assert build["targets"]["wheel"]["packages"] == ["core/efface", "hooks/efface_hooks"]
    for package in (CORE, HOOKS):
        assert [path.name for path in package.parent.iterdir() if path.name != "__pycache__"] == [package.name]
        assert (package / "py.typed").is_file()


@pytest.mark.parametrize("folder", DISTRIBUTIONS, ids=lambda folder: folder.name)
def test_a_plugin_is_a_distribution_of_its_own(folder: Path) -> None:
    about, package = project(folder)["project"], folder / "src" / f"efface_{folder.name}"
    assert about["name"] == f"efface-{folder.name}"
    assert "efface>=0.1,<0.2" in about["dependencies"]
    hooks, commands = (about["entry-points"].get(group, {}) for group in ("efface", "efface.commands"))
    assert hooks in ({folder.name: package.name}, {})
    assert hooks or folder.name in commands
    assert (folder / about["readme"]).is_file()
    assert [path.name for path in (folder / "src").iterdir() if path.suffix != ".egg-info"] == [package.name]
    for file in ("__init__.py", "py.typed"):
        assert (package / file).is_file()
    assert list((folder / "tests").glob("test_*.py"))


def test_no_folder_of_tests_is_a_package() -> None:
    folders = [ROOT / "tests", *(folder / "tests" for folder in DISTRIBUTIONS)]
    assert not [where(path) for folder in folders for path in folder.rglob("__init__.py")]
