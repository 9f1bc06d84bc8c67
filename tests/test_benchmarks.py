"""The page of benchmarks is what its script writes, and a run of some of them says so itself."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
PAGE = FOLDER.parent / "docs" / "benchmarks.md"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Scripts import their neighbours by plain names."""
    monkeypatch.syspath_prepend(FOLDER)
    yield
    for name in ("common", "page", "run"):
        sys.modules.pop(name, None)


@pytest.fixture
def page() -> ModuleType:
    import page

    return page


@pytest.fixture
def run() -> ModuleType:
    import run

    return run


def test_the_page_is_as_its_script_writes_it(page: Any, run: Any) -> None:
    found = page.Page.read(PAGE.read_text(encoding="utf-8"))
    assert str(found) == PAGE.read_text(encoding="utf-8")
    assert set(found.runs) == {row.benchmark for row in found.rows} == set(run.ALL)


def test_some_benchmarks_replace_their_lines_and_say_how_they_were_run(page: Any) -> None:
    one, two, three = (page.Row(f"of {name}", "1", "", name) for name in ("start", "stack", "dumo --rounds 5"))
    before = page.Page((one, two, three), dict.fromkeys(("start", "stack", "dumo --rounds 5"), "then"))
    anew = page.Row("of stack", "2", "", "stack")
    after = before.updated([anew, page.Row("more", "3", "", "new")], ["stack", "new"], "now")
    assert [(row.what, row.value) for row in after.rows] == [
        ("of start", "1"),
        ("of stack", "2"),
        ("of dumo --rounds 5", "1"),
        ("more", "3"),
    ]
    text = str(after).splitlines()
    assert "| `start`, `dumo --rounds 5` | then |" in text
    assert "| `stack`, `new` | now |" in text
    assert page.Page.read(str(after)) == after


def test_a_run_of_some_keeps_the_others_lines_and_a_run_of_all_keeps_none(
    run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def figures(benchmark: str, failed: list[str]) -> Iterator[Any]:
        yield run.Row(f"of {benchmark}", "7", "at most 6", benchmark)

    monkeypatch.setattr(run, "figures", figures)
    file = tmp_path / "page.md"
    for day, only in (("Monday", []), ("Tuesday", ["--only", "stack", "other"])):
        monkeypatch.setattr(run, "machine", lambda day=day: day)
        monkeypatch.setattr(sys, "argv", ["run.py", *only, "-o", str(file)])
        run.main()
    lines = file.read_text().splitlines()
    assert "| of stack | **7** | at most 6 | `stack` |" in lines
    assert len([line for line in lines if line.startswith("| of ")]) == len(run.ALL) + 1
    assert "| `stack`, `other` | Tuesday |" in lines
    assert len([line for line in lines if "Monday" in line]) == 1
    monkeypatch.setattr(sys, "argv", ["run.py", "-o", str(file)])
    run.main()
    assert "Monday" not in file.read_text()
    assert "of other" not in file.read_text()


def test_a_file_that_is_no_such_page_is_not_overwritten(
    run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "notes.md"
    file.write_text("mine")
    monkeypatch.setattr(sys, "argv", ["run.py", "--only", "stack", "-o", str(file)])
    with pytest.raises(SystemExit, match="not a page of benchmarks; name another file by -o"):
        run.main()
    assert file.read_text() == "mine"


@pytest.mark.parametrize(
    ("value", "aim", "misses"),
    [
        ("49", "at least 50", True),
        ("50", "at least 50", False),
        ("1.017", "at most 1.04", False),
        ("1.05", "at most 1.04", True),
        ("2.3%", "at most 5%", False),
        ("5.1%", "at most 5%", True),
        ("1.00", "below 1", True),
        ("0.32", "below 1", False),
        ("+0.4%, -1.7%", "no more than the sum", True),
        ("+7.8%, +12.4%", "no more than the sum", False),
        ("3", "", False),
    ],
)
def test_a_value_that_misses_its_aim_is_bold(page: Any, value: str, aim: str, misses: bool) -> None:
    text = str(page.Page((page.Row("what", value, aim, "stack"),), {"stack": "here"}))
    assert f"| what | {f'**{value}**' if misses else value} | {aim} | `stack` |" in text


def test_an_aim_says_its_direction(page: Any) -> None:
    with pytest.raises(ValueError, match="'50' is none of: at least, at most or below"):
        page.missed("49", "50")


@pytest.mark.parametrize(("load", "said"), [(0.1, "the machine at rest"), (1.7, "beside other work (load 1.7)")])
def test_how_busy_the_machine_was_is_said(run: Any, load: float, said: str) -> None:
    assert run.busy(load) == said
