"""What the benchmarks share."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

FIGURE = "figure: "


class Holder:
    """Stands in for a pipeline: a U-Net and nothing else."""

    def __init__(self, unet: Any) -> None:
        self.unet = unet


def seconds(call: Callable[[], object]) -> float:
    """Processor time of a call, so that other programs do not count."""
    start = time.process_time()
    call()
    return time.process_time() - start


def figure(what: str, value: str, aim: str = "") -> None:
    """Print a line that `run.py` puts into its table."""
    print(f"{FIGURE}{what} | {value} | {aim}", flush=True)
