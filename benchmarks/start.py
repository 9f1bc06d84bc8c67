"""How long `efface plugins` takes to answer, against a Python that does nothing: median of whole processes."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from common import figure

RUNS = 7


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    commands = {
        "efface plugins": [sys.executable, "-m", "efface", "plugins"],
        "python -c pass": [sys.executable, "-c", "pass"],
        "python -c 'import torch'": [sys.executable, "-c", "import torch"],
    }
    middle = {}
    for name, command in commands.items():
        seconds(command)
        times = [seconds(command) for _ in range(RUNS)]
        middle[name] = statistics.median(times)
        print(f"{name:28} median {statistics.median(times):5.2f} s   ({min(times):.2f} .. {max(times):.2f})")
    listed, imported = middle["efface plugins"], middle["python -c 'import torch'"]
    figure("`efface plugins`, to importing torch, by the clock", f"{listed / imported:.2f}", "below 1")


if __name__ == "__main__":
    main()
