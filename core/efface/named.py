"""A model that a plugin brings along."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class NamedModel:
    """A pipeline folder under a short name; `path` finds or makes it, `neutral` is its prompt for nothing special.

    `erasures` is a folder of fitted files that come with the model, for fits that take longer than anyone waits.
    """

    name: str
    summary: str
    path: Callable[[], Path]
    neutral: str
    erasures: Callable[[], Path] | None = None
