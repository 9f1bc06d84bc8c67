"""Progress as a bar on stderr."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"


class Bar:
    """A `Progress` that draws one bar per phase and leaves none behind; nothing at all unless `shown`."""

    def __init__(self, shown: bool) -> None:
        self._shown = shown
        self._phase: tuple[int, str] | None = None
        self._bar: Any = None

    def __call__(self, done: int, total: int, what: str) -> None:
        if not self._shown:
            return
        if self._phase != (total, what):
            self._begin(total, what)
        self._bar.update(done - self._bar.n)

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _begin(self, total: int, what: str) -> None:
        from tqdm import tqdm

        self._end()
        self._bar = tqdm(total=total, desc=what, file=sys.stderr, leave=False, bar_format=FORMAT)
        self._phase = (total, what)

    def _end(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar, self._phase = None, None
