"""Whether one plugin loads, found out in a process of its own so that nothing it does can harm this one."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from typing import IO, Any

from efface.cli.requirements import unmet
from efface.registry import DISABLE, PluginInfo


@dataclass(frozen=True)
class Fault:
    """What went wrong while a plugin was loaded or asked: when, in a line, and the traceback if there is one."""

    during: str
    error: str
    traceback: str = ""


@dataclass(frozen=True)
class Checkup:
    """One plugin, or one plugin's command, after the attempt to load it."""

    plugin: PluginInfo
    methods: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    suites: tuple[str, ...] = ()
    deprecated: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()
    seconds: float = 0.0

    @property
    def state(self) -> str:
        return "disabled" if self.plugin.disabled else "broken" if self.faults else "ok"

    def to_json(self) -> dict[str, Any]:
        found = asdict(self)
        return {**found.pop("plugin"), "state": self.state, **found}


def checkup(plugin: PluginInfo, group: str, limit: float) -> Checkup:
    """Loads the plugin in a subprocess for at most `limit` seconds; a disabled one is left alone."""
    if plugin.disabled:
        return Checkup(plugin)
    started = time.perf_counter()
    answer = _answer([sys.executable, "-m", "efface.cli.probing", group, plugin.module], limit)
    loading = [Fault(**fault) for fault in answer.pop("faults")]
    pins = [Fault("requirements", fault) for fault in unmet(plugin.distribution)]
    brought = {what: tuple(names) for what, names in answer.items()}
    seconds = round(time.perf_counter() - started, 2)
    return Checkup(plugin, **brought, faults=(*pins, *loading), seconds=seconds)


def _answer(arguments: list[str], limit: float) -> dict[str, Any]:
    """What the subprocess prints; files take it in, for a pipe stays open as long as any child of a plugin lives."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, start_new_session=True
        )
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            remedy = f"--timeout gives it longer, {DISABLE} leaves it out"
            return _failed(f"still not loaded after {limit:g} s ({remedy})", _text(errors))
        finally:
            _end(process)
        try:
            found: dict[str, Any] = json.loads(_text(output))
        except ValueError:
            return _failed(f"ended the process that loaded it ({_ending(code)})", _text(errors))
        return found


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the process and every child that it has left behind."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()


def _failed(error: str, said: str) -> dict[str, Any]:
    return {"faults": [{"during": "import", "error": error, "traceback": said}]}


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")
