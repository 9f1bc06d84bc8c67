"""Whether one plugin loads, found out in a process of its own so that nothing it does can harm this one."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

from efface.registry import PluginInfo


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
    return Checkup(
        plugin,
        tuple(answer.get("methods", ())),
        tuple(answer.get("models", ())),
        tuple(Fault(**fault) for fault in answer["faults"]),
        round(time.perf_counter() - started, 2),
    )


def _answer(arguments: list[str], limit: float) -> dict[str, Any]:
    try:
        process = subprocess.run(
            arguments, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=limit
        )
    except subprocess.TimeoutExpired as error:
        return _failed(f"still not loaded after {limit:g} s (--timeout gives it longer)", _text(error.stderr))
    try:
        found: dict[str, Any] = json.loads(process.stdout)
    except ValueError:
        return _failed(f"ended the process that loaded it ({_ending(process.returncode)})", process.stderr)
    return found


def _failed(error: str, said: str) -> dict[str, Any]:
    return {"faults": [{"during": "import", "error": error, "traceback": said}]}


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _text(output: bytes | str | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""
