"""Progress as a bar on stderr."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"


class Bar:
    """A `Progress` that draws one bar per phase and leaves none behind; nothing at all unless `shown`.

    A new total or a step back begins a phase; another text alone renames the bar.
    """

    def __init__(self, shown: bool) -> None:
        self._shown = shown
        self.drawn: Any = None

    def __call__(self, done: int, total: int, what: str) -> None:
        if not self._shown:
            return
        if self.drawn is None or total != self.drawn.total or done < self.drawn.n:
            self._begin(total, what)
        self.drawn.set_description_str(what, refresh=False)
        self.drawn.update(done - self.drawn.n)

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _begin(self, total: int, what: str) -> None:
        from tqdm import tqdm

        self._end()
        self.drawn = tqdm(total=total, desc=what, file=sys.stderr, leave=False, bar_format=FORMAT)

    def _end(self) -> None:
        if self.drawn is not None:
            self.drawn.close()
        self.drawn = None
