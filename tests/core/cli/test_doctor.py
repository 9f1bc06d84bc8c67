"""`efface doctor`: what is wrong, by name, whatever a plugin does when it is loaded."""

from __future__ import annotations

import importlib.metadata
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import Result

from efface import hookspecs
from efface.cli.checkup import Checkup
from efface.cli.diagnosis import Diagnosis
from efface.cli.machine import LIBRARIES, Machine
from efface.cli.probing import _deprecated
from efface.devices import precisions
from efface.registry import PluginInfo

Run = Callable[..., Result]
Install = Callable[..., None]

HALF = """
from dataclasses import dataclass
from typing import ClassVar

import efface.hookspecs

@dataclass(frozen=True)
class Dim:
    name: ClassVar[str] = "dim"

    def fit(self, model, request, run): ...
    def apply(self, patch, fits): ...

@efface.hookspecs.hookimpl
def efface_methods():
    return [Dim]

@efface.hookspecs.hookimpl
def efface_models():
    return 5
"""
COMMAND = """
import click

@click.command()
def hello(): ...
"""


@pytest.fixture
def doctor(run: Run) -> Run:
    """`efface doctor` with time enough for a busy machine."""

    def doctor(*arguments: str) -> Result:
        return run("doctor", "--timeout", "120", *arguments)

    return doctor


def problems(result: Result) -> list[str]:
    found = json.loads(result.stdout)
    assert result.exit_code == (1 if found["problems"] else 0)
    assert found["ok"] is not bool(found["problems"])
    return list(found["problems"])


def test_all_is_well(doctor: Run) -> None:
    result = doctor()
    lines = result.stdout.splitlines()
    assert (result.exit_code, lines[-1], result.stderr) == (0, "Nothing is wrong.", "")
    heads = [line.split()[0] for line in lines[:11]]
    assert heads == [
        *("python", "efface", "torch", "diffusers", "transformers", "peft", "accelerate", "safetensors", "pluggy"),
        *("devices", "threads"),
    ]
    (toys,) = (line.split() for line in lines if line.startswith("toys"))
    assert toys[:-1] == ["toys", "efface-toys", "1.0", "ok", "chat,", "dim,", "stop,", "tiny"]
    (devices,) = (line for line in lines if line.startswith("devices"))
    assert "cpu (float32, float16, bfloat16)" in devices


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("raise RuntimeError('no luck')", "import: RuntimeError: no luck"),
        ("import os; os._exit(3)", "import: ended the process that loaded it (exit code 3)"),
        ("import time; time.sleep(60)", "import: still not loaded after 2 s (--timeout gives it longer, "),
        ("print('noise')", "import: PluginError: extra_bad implements no hook with @efface.hookimpl; there are:"),
        (HALF, "efface_models: PluginError: efface_models must return a list, not 5"),
    ],
    ids=["raises", "exits", "hangs", "is empty", "one hook"],
)
def test_a_broken_plugin_is_named_with_its_fault(
    doctor: Run, install: Install, monkeypatch: pytest.MonkeyPatch, source: str, fault: str
) -> None:
    install("extra-bad", {"extra_bad": source}, "[efface]\nbad = extra_bad\n")
    monkeypatch.setenv("EFFACE_LOAD_PLUGINS", "bad")
    (found,) = problems(doctor("--json", *(["--timeout", "2"] if "sleep" in source else [])))
    assert found.startswith(f"plugin bad (extra-bad): {fault}")


def test_tracebacks_are_shown_on_request(doctor: Run, install: Install) -> None:
    install("extra-bad", {"extra_bad": "1 / 0"}, "[efface]\nbad = extra_bad\n")
    assert "Traceback" not in doctor().stdout
    shown = doctor("--tracebacks")
    assert shown.exit_code == 1
    assert "bad, import:\nTraceback (most recent call last):" in shown.stdout
    assert shown.stdout.endswith("1 problem:\n  plugin bad (extra-bad): import: ZeroDivisionError: division by zero\n")


def test_a_disabled_plugin_is_left_alone(doctor: Run, install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("extra-bad", {"extra_bad": "1 / 0"}, "[efface]\nbad = extra_bad\n")
    monkeypatch.setenv("EFFACE_DISABLE_PLUGINS", "bad")
    result = doctor("--json")
    assert problems(result) == []
    (bad,) = (one for one in json.loads(result.stdout)["plugins"] if one["name"] == "bad")
    assert (bad["state"], bad["seconds"], bad["faults"]) == ("disabled", 0.0, [])


def test_commands_of_plugins_are_looked_at_too(doctor: Run, install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("hello", "plugins", "both", "bad")
    entries = "".join(f"{name} = extra_command:{'none' if name == 'bad' else 'hello'}\n" for name in names)
    install("extra-command", {"extra_command": COMMAND}, f"[efface.commands]\n{entries}")
    install("extra-other", {}, "[efface.commands]\nboth = extra_command:hello\n")
    monkeypatch.setenv("EFFACE_LOAD_PLUGINS", "extra-command,extra-other")
    assert problems(doctor("--json")) == [
        "command bad (extra-command): import: AttributeError: module 'extra_command' has no attribute 'none'",
        "command plugins (extra-command): efface has a command of this name itself",
        "command both: several plugins bring it (extra-command, extra-other); leave out all but one of them",
    ]


def test_one_name_for_two_methods_is_a_note(doctor: Run, install: Install) -> None:
    install("extra-dim", {"extra_dim": HALF.replace("return 5", "return []")}, "[efface]\ndim = extra_dim\n")
    result = doctor()
    assert result.exit_code == 0
    assert "several plugins bring a method dim: name it DISTRIBUTION:dim (extra-dim, efface-toys)" in result.stdout


def test_a_missing_library_is_a_problem(doctor: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "peft":
            raise importlib.metadata.PackageNotFoundError(name)
        return found(name)

    found = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setenv("EFFACE_LOAD_PLUGINS", "")
    (found,) = problems(doctor("--json"))
    assert re.fullmatch(r"efface needs peft>=[\d.]+, which is not installed", found)


def test_a_plugin_for_another_efface_is_named_everywhere(doctor: Run, run: Run, install: Install) -> None:
    wants = (
        "efface>=99,<100",
        "torch",
        "no-such-library>=2; python_version>'3'",
        "nowhere; extra == 'test'",
        "not a pin",
    )
    install("extra-late", {"extra_late": HALF.replace("return 5", "return []")}, "[efface]\nlate = extra_late\n")
    metadata = Path(sys.path[0], "extra_late-1.0.dist-info", "METADATA")
    metadata.write_text(metadata.read_text() + "".join(f"Requires-Dist: {one}\n" for one in wants))
    version = importlib.metadata.version("efface")
    faults = [
        f"needs efface<100,>=99, and {version} is installed",
        "needs no-such-library>=2, which is not installed",
        "has a requirement that cannot be read: 'not a pin'",
    ]
    assert problems(doctor("--json")) == [f"plugin late (extra-late): requirements: {fault}" for fault in faults]
    listed = run("plugins", "--json")
    assert listed.exit_code == 0
    assert listed.stderr.splitlines() == [f"Warning: plugin late {fault}; see efface doctor" for fault in faults]
    assert {one["name"]: one["unmet"] for one in json.loads(listed.stdout)}["late"] == faults


def test_a_plugin_that_hangs_in_a_child_is_ended_with_it(doctor: Run, install: Install, tmp_path: Path) -> None:
    beat = tmp_path / "beat"
    child = f"import time; [(open({str(beat)!r}, 'a').write('.'), time.sleep(0.05)) for _ in range(600)]"
    source = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    install("extra-bad", {"extra_bad": source}, "[efface]\nbad = extra_bad\n")
    (found,) = problems(doctor("--json", "--timeout", "5"))
    assert "still not loaded after 5 s" in found
    beats = beat.stat().st_size
    time.sleep(0.5)
    assert beat.stat().st_size == beats


def test_a_device_that_computes_nothing_is_a_problem() -> None:
    known = ("3.11", "Linux", dict.fromkeys(LIBRARIES, "1.0"))
    assert Machine(*known, devices={"cpu": ["float32"]}).problems == []
    assert Machine(*known, devices={"cpu": []}).problems == ["device cpu computes in no precision"]
    assert precisions("meta") == []


def test_a_hook_on_its_way_out_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = hookspecs.hookspec(warn_on_impl=DeprecationWarning("gone in 0.3, use efface_methods"))(lambda: [])
    monkeypatch.setattr(hookspecs, "efface_old", spec, raising=False)
    plugin = SimpleNamespace(__name__="old", efface_methods=hookspecs.hookimpl(lambda: []), efface_old=None)
    told = ("efface_old: gone in 0.3, use efface_methods",)
    assert tuple(_deprecated(plugin)) == told
    one = Checkup(PluginInfo("old", "efface-old", "1.0", "", "old"), deprecated=told)
    machine = Machine("3.11", "Linux", dict.fromkeys(LIBRARIES, "1.0"))
    assert Diagnosis(machine, (one,), ()).notes == [f"plugin old: deprecated: {told[0]}"]


def test_a_model_is_loaded_and_measured_against_the_methods(doctor: Run, install: Install) -> None:
    install("extra-bad", {"extra_bad": "raise SystemExit"}, "[efface]\nbad = extra_bad\n")
    result = doctor("tiny", "--json")
    assert problems(result) == ["plugin bad (extra-bad): import: SystemExit"]
    model = json.loads(result.stdout)["model"]
    assert (model["pipeline"], model["kinds"]["skip"]) == ("StableDiffusionPipeline", 12)
    assert model["lacking"] == {"chat": [], "dim": [], "stop": ["nowhere"]}
    notes = json.loads(result.stdout)["notes"]
    assert notes == ["method stop does not fit tiny: there are no points of kind nowhere"]


def test_a_model_is_loaded_as_it_is_asked_for(doctor: Run) -> None:
    result = doctor("tiny", "--dtype", "bfloat16")
    assert (result.exit_code, "model tiny: StableDiffusionPipeline on cpu in bfloat16" in result.stdout) == (0, True)
    result = doctor("tiny", "--device", "abacus")
    assert result.exit_code == 1
    assert "  model tiny: No device 'abacus'; this machine has: cpu" in result.stdout


def test_a_model_that_cannot_be_loaded_is_a_problem(doctor: Run) -> None:
    result = doctor("tony")
    assert result.exit_code == 1
    assert "  model tony: No model 'tony'; installed: tiny. Did you mean 'tiny'?" in result.stdout
