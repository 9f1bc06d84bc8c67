"""How long the parts of a run took."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter


class Stopwatch:
    """`seconds` per part in order; `part` is the one that runs, or ran last. A part that raises is timed too."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.part = ""
        self._started = perf_counter()

    @property
    def elapsed(self) -> float:
        """Seconds since the stopwatch was made."""
        return perf_counter() - self._started

    @contextmanager
    def timing(self, part: str) -> Iterator[None]:
        self.part, start = part, perf_counter()
        try:
            yield
        finally:
            self.seconds[part] = perf_counter() - start
