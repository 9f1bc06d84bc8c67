"""What gets to the terminal: bars, tables, and other people's text."""

from __future__ import annotations

import logging
import os
import sys

import pytest

from efface.cli.bar import Bar
from efface.cli.console import Console, printable, table
from efface.cli.wording import size, slug, slugs


def test_a_bar_is_drawn_per_phase_and_taken_away(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar(shown=True) as bar:
        bar(0, 2, "reading")
        bar(2, 2, "reading")
        bar(1, 4, "solving")
    drawn = capsys.readouterr().err
    assert drawn.index("reading:   0%") < drawn.index("solving:   0%")
    assert drawn.rpartition("\r")[0].rpartition("\r")[2].strip() == ""


def test_a_bar_that_says_something_else_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar(shown=True) as bar:
        bar(0, 2, "loss 0.5")
        started = bar.drawn
        bar(1, 2, "loss 0.4")
        assert bar.drawn is started
        bar(0, 2, "loss 0.9")
        assert bar.drawn is not started
    assert bar.drawn is None


def test_a_bar_that_is_not_shown_is_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar(shown=False) as bar:
        bar(0, 2, "reading")
    assert capsys.readouterr() == ("", "")


def test_work_keeps_stdout_clean_and_libraries_calm(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFUSERS_VERBOSITY", "info")
    level = logging.getLogger("transformers").level
    with Console().working():
        print("noise")  # noqa: T201
        assert logging.getLogger("transformers").level == logging.ERROR
        assert (os.environ["TRANSFORMERS_VERBOSITY"], os.environ["DIFFUSERS_VERBOSITY"]) == ("error", "info")
    assert logging.getLogger("transformers").level == level
    assert "TRANSFORMERS_VERBOSITY" not in os.environ
    assert capsys.readouterr() == ("", "noise\n")


def test_debug_lets_libraries_talk() -> None:
    with Console(debug=True).working():
        assert "TRANSFORMERS_VERBOSITY" not in os.environ
        assert sys.stdout is sys.stderr


def test_a_table_aligns_words_left_and_numbers_right() -> None:
    assert table(("name", "n"), [("a", 10), ("bcdef", None)]) == ["name    n", "a      10", "bcdef   -"]
    assert table(("name", "n"), []) == []


def test_what_a_terminal_would_obey_is_spelled_out() -> None:
    assert printable("caf\u00e9 猫\x1b[1m\u202e") == "caf\u00e9 猫\\x1b[1m\\u202e"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("A cat, in  a hat!", "a-cat-in-a-hat"),
        ("Señor 猫_1", "señor-猫-1"),
        ("../..", "x"),
        ("", "x"),
        ("a" * 99, "a" * 48),
    ],
)
def test_a_slug_is_a_plain_file_name(text: str, name: str) -> None:
    assert slug(text, "x") == name


def test_slugs_differ_even_where_texts_look_the_same() -> None:
    assert list(slugs(["a cat", "A cat", "a cat 2", "a-cat"], "x")) == ["a-cat", "a-cat-2", "a-cat-2-2", "a-cat-3"]


def test_sizes_are_read_at_a_glance() -> None:
    assert [size(count) for count in (310, 12_345, 1_234_567)] == ["310 bytes", "12.3 kB", "1.2 MB"]
