"""`efface new`: what it writes works as it is, and it refuses before it writes anything."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
from click.testing import Result

from efface.cli.scaffold import Kind, Scaffold
from efface.errors import CannotSave

Run = Callable[..., Result]
Install = Callable[..., None]
ROOT = Path(__file__).resolve().parents[3]
CACHE = ROOT / ".mypy_cache" / "generated"
KINDS: tuple[Kind, ...] = get_args(Kind)


def run_in(folder: Path, *arguments: str, **environment: str) -> str:
    """What a command prints; it must succeed."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "EFFACE_LOAD_PLUGINS")}
    done = subprocess.run(arguments, cwd=folder, env=kept | environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> dict[Kind, Path]:
    """One plugin of each kind, side by side."""
    folder = tmp_path_factory.mktemp("plugins")
    found = {kind: folder / f"my-{kind}" for kind in KINDS}
    for kind, path in found.items():
        Scaffold(f"my-{kind}", kind).write(path)
    return found


def test_it_writes_a_plugin_and_says_what_comes_next(run: Run, place: Path) -> None:
    result = run("new", "my-method", "--kind", "hooks")
    assert result.exit_code == 0, result.output
    *files, _, after = result.stdout.splitlines()
    assert sorted(files) == sorted(
        str(path.relative_to(place)) for path in Path("my-method").absolute().rglob("*") if path.is_file()
    )
    assert after == "Next: pip install --editable 'my-method[test]' && pytest my-method"
    assert {path.name for path in place.iterdir()} == {"my-method"}
    about = tomllib.loads(Path("my-method/pyproject.toml").read_text())["project"]
    assert about["entry-points"]["efface"] == {"my-method": "efface_my_method"}
    major, minor = importlib.metadata.version("efface").split(".")[:2]
    assert about["dependencies"] == [f"efface>={major}.{minor},<{major}.{int(minor) + 1}"]


def test_it_writes_where_it_is_told_to(run: Run, place: Path) -> None:
    result = run("new", "blur", "-o", "elsewhere", "--json")
    assert json.loads(result.stdout)["folder"] == "elsewhere"
    assert Path("elsewhere/src/efface_blur/method.py").is_file()
    assert {path.name for path in place.iterdir()} == {"elsewhere"}


@pytest.mark.parametrize("name", ["Bad", "two words", "-dash", "1st", "a" * 41, "../up", "näh", ""])
def test_a_name_that_no_method_may_have_is_refused(refused: Callable[..., str], name: str) -> None:
    told = refused("new", "--", name)
    assert told == f"A method's name is lower case, such as 'my-method', and has at most 40 letters, not {name!r}"


def test_a_name_that_is_taken_is_refused(
    refused: Callable[..., str], install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert refused("new", "dim") == "The name 'dim' is taken by efface-toys 1.0; choose another one"
    assert "is taken by efface-toys 1.0" in refused("new", "toys")
    install("efface-late", {}, "[efface]\nlate = efface_late\n")
    monkeypatch.setenv("EFFACE_DISABLE_PLUGINS", "late")
    assert "is taken by efface-late 1.0" in refused("new", "late")


def test_a_folder_that_is_there_is_left_alone(refused: Callable[..., str], place: Path) -> None:
    (place / "blur").mkdir()
    (place / "link").symlink_to("blur")
    assert refused("new", "blur") == "Cannot make blur: it is there already"
    assert refused("new", "blur", "-o", "link") == "Cannot make link: it is there already"
    assert refused("new", "blur", "-o", "no/where") == "Cannot make no/where: No such file or directory"


def test_it_makes_the_folder_whole_or_not_at_all(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(CannotSave, match=r"Cannot make .*blur: No space left on device"):
        Scaffold("blur", "weights").write(place / "blur")
    assert not list(place.iterdir())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("my-method", "MyMethod"),
        ("a1_b", "A1B"),
        ("none", "NoneMethod"),
        ("tensor", "TensorMethod"),
        ("exception", "ExceptionMethod"),
        ("class", "Class"),
    ],
)
def test_a_class_is_named_after_the_method_unless_that_name_is_taken(kind: Kind, name: str, title: str) -> None:
    scaffold = Scaffold(name, kind)
    if not (name == "tensor" and "Tensor" not in scaffold.files()[f"src/{scaffold.package}/method.py"]):
        assert scaffold.title == title
    for path, text in scaffold.files().items():
        if path.endswith(".py"):
            compile(text, path, "exec")


def test_all_kinds_pass_ruff_as_they_are(plugins: dict[Kind, Path]) -> None:
    ruff = str(Path(sysconfig.get_path("scripts")) / "ruff")
    for folder in plugins.values():
        run_in(folder, ruff, "check", "--no-cache", ".")
        run_in(folder, ruff, "format", "--check", "--no-cache", ".")


def test_all_kinds_pass_mypy_strict_as_they_are(plugins: dict[Kind, Path]) -> None:
    sources = [*(str(folder / "src") for folder in plugins.values()), str(plugins["trained"] / "tests")]
    options = ["--config-file", str(plugins["weights"] / "pyproject.toml"), "--cache-dir", str(CACHE)]
    run_in(ROOT, sys.executable, "-m", "mypy", *options, *sources)


def test_all_kinds_pass_the_conformance_kit_beside_the_built_wheel(plugins: dict[Kind, Path], tmp_path: Path) -> None:
    """In a fresh environment that has efface from its wheel, and all but efface of this one.

    To save time the whole kit runs on the closed form, and what needs few fits on the other two.
    """
    pytest.importorskip("hatchling")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["--no-deps", "--no-build-isolation", "--no-index"]
    environment = tmp_path / "venv"
    run_in(tmp_path, *pip, "wheel", *build, "--wheel-dir", str(tmp_path), str(ROOT))
    run_in(tmp_path, sys.executable, "-m", "venv", "--without-pip", str(environment))
    python = str(environment / "bin" / "python")
    _lend(environment, tmp_path / "lent")
    (wheel,) = tmp_path.glob("efface-*.whl")
    run_in(tmp_path, *pip, "--python", python, "install", *build, str(wheel), *map(str, plugins.values()))
    where = run_in(tmp_path, python, "-c", "import efface; print(efface.__file__)")
    assert Path(where.strip()).is_relative_to(environment)
    listed = json.loads(run_in(tmp_path, python, "-m", "efface", "plugins", "--json"))
    assert {one["name"] for one in listed} == {path.name for path in plugins.values()}
    folders = [str(folder / "tests") for folder in plugins.values()]
    config = str(plugins["weights"] / "pyproject.toml")
    chosen = "MyWeights or sd1 or covers or settings or round_trip or seed or bfloat16"
    told = run_in(tmp_path, python, "-m", "pytest", "-q", "-c", config, "-W", "error", "-k", chosen, *folders)
    assert re.search(r"^\d+ passed, \d+ deselected in", told, re.MULTILINE), told


def _lend(environment: Path, lent: Path) -> None:
    """All that is installed here, but for efface and its plugins, in the environment too."""
    lent.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "efface" not in entry.name.lower() and entry.suffix != ".pth":
            (lent / entry.name).symlink_to(entry)
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "lent.pth").write_text(f"{lent}\n")
