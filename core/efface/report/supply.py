"""Where the erasures that a demonstration shows come from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from efface.concept import Request
from efface.erasing import erase
from efface.erasure import Erasure
from efface.method import Progress, cost_hint
from efface.registry import Registry
from efface.report.budget import Budget
from efface.report.demonstration import Skipped
from efface.report.example import unseen
from efface.report.progress import named
from efface.report.shipped import Shipped
from efface.report.stopwatch import Stopwatch
from efface.suite import Suite
from efface.wording import roughly


@dataclass(frozen=True)
class Taken:
    """An erasure to show: fitted a moment ago, or out of a file, and why that."""

    erasure: Erasure
    file: str = ""
    why: str = ""


@dataclass(frozen=True)
class Supply:
    """Fits, where there is time for them, else files that come with the model."""

    pipe: Any
    registry: Registry
    suite: Suite | None
    shipped: Shipped
    budget: Budget
    seed: int
    progress: Progress

    def take(self, method: str, request: Request, answered: Request, left: float, watch: Stopwatch) -> Taken | Skipped:
        """The erasure of a request, when `left` seconds are left for its fit.

        `answered` is the request with the anchor that will be used. A fit is timed as "fit", reading as "read".
        """
        cost = self.cost(method)
        if self.budget.allows(cost, left):
            with watch.timing("fit"):
                return Taken(self._fitted(method, request))
        why = f"fitting takes about {roughly(cost)}, {roughly(left)} of the budget left"
        with watch.timing("read"):
            search = self.shipped.find(method, answered, self._settings(method))
        if search.file is None:
            return Skipped(method, f"{why}; --refit or a larger --budget ({search.why})")
        return Taken(search.file.erasure, search.file.name, why)

    def cost(self, method: str) -> float:
        """Seconds that a method says its fit takes."""
        return cost_hint(self.registry.method(method)) or 0.0

    def _fitted(self, method: str, request: Request) -> Erasure:
        return erase(
            self.pipe,
            request.concepts,
            method=method,
            keep=request.keep,
            templates=request.templates,
            settings=self._settings(method),
            seed=self.seed,
            progress=named(method, self.progress),
            registry=self.registry,
        )

    def _settings(self, method: str) -> dict[str, tuple[str, ...]]:
        return unseen(self.suite, self.registry.method(method))


def size_of(erasure: Erasure) -> int:
    """Bytes of the erasure's file."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "erasure.safetensors"
        erasure.save(path)
        return path.stat().st_size
