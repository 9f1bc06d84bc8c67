"""The command line as a whole: what it starts with, how it finds commands, how it fails."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from efface.cli import group
from efface.cli.commands import COMMANDS, present

Run = Callable[..., Result]
Refused = Callable[..., str]
Install = Callable[..., None]

COMMAND = """
import click

@click.command()
@click.option("--times", default=1)
def hello(times):
    "Greets."
    click.echo("hello " * times)
"""


@pytest.mark.parametrize("arguments", [["plugins"], ["plugins", "--json"], ["--help"], ["erase", "--help"]])
def test_it_answers_without_the_heavy_libraries(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from efface.cli.group import efface\n"
        f"efface({arguments}, standalone_mode=False)\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'numpy', 'PIL', 'tqdm', 'safetensors'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_command_has_a_line_that_a_terminal_of_80_columns_shows_whole(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = run("--help").stdout.splitlines()
    commands = lines[lines.index("Commands:") + 1 : lines.index("Commands:") + 1 + len(present())]
    assert [line.split()[0] for line in commands] == present()
    assert [line for line in commands if line.endswith("...") or not line.endswith(".")] == []


def test_python_m_efface_is_the_command_line() -> None:
    done = subprocess.run([sys.executable, "-m", "efface", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()[0]) == (0, "efface")


def test_a_closed_pipe_is_no_error_message() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "efface", "plugins", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    process.wait()


@pytest.mark.parametrize("name", [None, *present()])
def test_every_help_text_has_an_example(run: Run, name: str | None) -> None:
    result = run(*([name] if name else []), "--help")
    assert result.exit_code == 0
    assert f"Examples:\n    efface {name or ''}" in result.stdout


def test_the_help_lists_every_command_with_a_whole_sentence(run: Run) -> None:
    lines = run("--help").stdout.splitlines()
    for name in ("erase", "generate", "plan", "show", "methods", "points", "plugins", "doctor"):
        (line,) = (line for line in lines if line.startswith(f"  {name} "))
        assert line.endswith(".")
        assert not line.endswith("...")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["erasee"], "No command 'erasee'; there are: apply, attack, card, check, compare, compose, demo,"),
        (["--fast", "plugins"], "No such option '--fast'. (see efface --help)"),
        (["plugins", "--jsn"], "No such option '--jsn'. Did you mean '--json'? (see efface plugins --help)"),
        (["points"], "Missing argument 'MODEL'. (see efface points --help)"),
        (["erase", "tiny", "--concept", "cat"], "Missing option '--method'. (see efface erase --help)"),
        (
            ["erase", "tiny", "--concept", "cat", "--method", "dim", "--kind", "thing"],
            "Invalid value for '--kind': 'thing' is not one of 'object', 'style', 'person', 'explicit'.",
        ),
        (["points", "tony"], "No model 'tony'; installed: tiny. Did you mean 'tiny'?"),
        (["points", "."], ". is a folder without model_index.json: not a diffusers pipeline"),
        (["methods", "dimm"], "No method 'dimm'; installed: chat, dim, stop. Did you mean 'dim'?"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(refused: Refused, arguments: list[str], message: str) -> None:
    assert refused(*arguments).startswith(message)


def test_debug_shows_where_an_error_comes_from(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    by_option = run("--debug", "methods", "dimm")
    monkeypatch.setenv("EFFACE_DEBUG", "1")
    by_environment = run("methods", "dimm")
    for result in (by_option, by_environment):
        assert result.exit_code == 2
        assert result.stderr.startswith("Traceback")
        assert result.stderr.splitlines()[-1].startswith("Error: No method 'dimm'; installed: chat, dim, stop.")


def test_a_programming_error_keeps_its_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("efface.registry.Registry.installed", fail)
    assert isinstance(run("plugins").exception, ZeroDivisionError)


def test_text_from_elsewhere_cannot_steer_the_terminal(refused: Refused) -> None:
    assert r"No method '\x1b[2J'" in refused("methods", "\x1b[2J")
    assert r"x\u202ey: No such file" in refused("show", "x\u202ey")


class TestCommandsOfPlugins:
    def test_are_found_and_run(self, run: Run, install: Install) -> None:
        install("extra-hello", {"extra_hello": COMMAND}, "[efface.commands]\nhello = extra_hello:hello\n")
        assert run("hello", "--times", "2").stdout == "hello hello \n"

    def test_are_listed_without_being_loaded(self, run: Run, install: Install) -> None:
        install("extra-hello", {"extra_hello": COMMAND}, "[efface.commands]\nhello = extra_hello:hello\n")
        assert "hello  About extra-hello. (extra-hello 1.0)" in " ".join(run("--help").stdout.split("\n")).replace(
            "     ", ""
        )
        assert "extra_hello" not in sys.modules

    @pytest.mark.parametrize(
        ("source", "fault"),
        [
            ("raise RuntimeError('no luck\\ntoday')", "cannot be loaded: RuntimeError: no luck today"),
            ("raise SystemExit(3)", "cannot be loaded: SystemExit: 3"),
            ("hello = 5", "is 5, not a click command"),
        ],
    )
    def test_a_broken_one_fails_alone(
        self, run: Run, refused: Refused, install: Install, source: str, fault: str
    ) -> None:
        install("extra-hello", {"extra_hello": source}, "[efface.commands]\nhello = extra_hello:hello\n")
        assert refused("hello") == refused("hello", "--help") == f"Command 'hello' of extra-hello 1.0 {fault}"
        assert run("plugins").exit_code == run("--help").exit_code == 0

    def test_two_of_one_name_are_refused_by_name(self, refused: Refused, install: Install) -> None:
        for name in ("extra-one", "extra-two"):
            install(
                name,
                {"extra_hello": COMMAND},
                "[efface.commands]\nhello = extra_hello:hello\n",
                plugin="extra-one,extra-two",
            )
        assert refused("hello").startswith("Several plugins bring a command 'hello': extra-one, extra-two;")

    def test_cannot_replace_our_own(self, run: Run, install: Install) -> None:
        install("extra-hello", {"extra_hello": COMMAND}, "[efface.commands]\nplugins = extra_hello:hello\n")
        assert "hello" not in run("plugins", "--json").stdout.replace("extra-hello", "")

    def test_are_left_out_with_their_plugin(
        self, refused: Refused, install: Install, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        entries = "[efface]\nextra = extra_hello\n[efface.commands]\nhello = extra_hello:hello\n"
        install("extra-hello", {"extra_hello": COMMAND}, entries)
        monkeypatch.setenv("EFFACE_DISABLE_PLUGINS", "extra")
        assert refused("hello").startswith("No command 'hello'")


def test_every_command_of_the_table_is_there_or_left_out() -> None:
    assert set(present()) <= set(COMMANDS)
    for name in present():
        command = group.efface.get_command(click.Context(group.efface), name)
        assert command is not None
        assert command.name == name


def test_a_command_works_without_the_group_around_it() -> None:
    command = group.efface.get_command(click.Context(group.efface), "plugins")
    assert command is not None
    assert CliRunner().invoke(command, ["--json"]).exit_code == 0


def test_nothing_is_written_by_a_look_around(run: Run, place: Path) -> None:
    run("plugins")
    run("methods")
    assert list(place.iterdir()) == []
