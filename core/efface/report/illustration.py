"""Pictures that a method draws of what its erasure does, for the page of a demonstration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from efface.erasure import Erasure
from efface.method import Method, Progress
from efface.registry import Registry
from efface.report.sampling import Sampling

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Illustration:
    """A picture, shown at its size up to the width of the page, and a sentence that says what is to be seen."""

    about: str
    image: Image


@dataclass(frozen=True)
class Showing:
    """What a method may draw from: the pipeline without any erasure, and the pictures `base` that it made so.

    `sampling` says how these were made. The pipeline has to be left as it was.
    """

    pipe: Any
    registry: Registry
    sampling: Sampling
    base: tuple[Image, ...]
    progress: Progress


Drawing = Callable[[Erasure, Showing], Sequence[Illustration]]


def drawing_of(method: Method) -> Drawing | None:
    """The method's `illustrate(erasure, showing)`, where it has one."""
    return getattr(method, "illustrate", None)
