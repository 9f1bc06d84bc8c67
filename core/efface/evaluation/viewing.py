"""One set of pictures after another through the eyes of a suite."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from efface.errors import PluginError
from efface.evaluation.draws import Draw
from efface.evaluation.intervals import Flags
from efface.evaluation.kernel import Features
from efface.suite import SHOWN, Suite

if TYPE_CHECKING:
    from PIL.Image import Image

Pictures = Callable[[Sequence[Draw]], list["Image"]]


class View:
    """What a suite says of the pictures of one stage; PluginError where its answer has the wrong form."""

    def __init__(self, suite: Suite, pictures: Pictures) -> None:
        self.suite = suite
        self.pictures = pictures
        self._shown: dict[tuple[tuple[Draw, ...], str], Flags] = {}

    def shown(self, draws: tuple[Draw, ...], concept: str) -> Flags:
        """Whether each picture shows the concept, (n,)."""
        if (draws, concept) not in self._shown:
            self._shown[draws, concept] = self._found(self.pictures(draws), concept) >= SHOWN
        return self._shown[draws, concept]

    def region(self, images: Sequence[Image], concept: str) -> NDArray[np.bool_] | None:
        """Where each picture shows the concept, (n, H, W); None where the suite cannot tell."""
        found = self.suite.region(images, concept) if images else None
        if found is None:
            return None
        shape = (len(images), *images[0].size[::-1])
        return np.asarray(self._checked("region", found, shape), dtype=bool)

    def features(self, draws: tuple[Draw, ...]) -> Features | None:
        """Features of each picture, (n, D); None where the suite has none."""
        images = self.pictures(draws)
        found = self.suite.features(images) if images else None
        if found is None:
            return None
        shape = (len(images), np.size(found) // len(images))
        return np.asarray(self._checked("features", found, shape), dtype=np.float64)

    def _found(self, images: Sequence[Image], concept: str) -> NDArray[Any]:
        if not images:
            return np.zeros(0)
        return self._checked("found", self.suite.found(images, concept), (len(images),))

    def _checked(self, question: str, answer: object, shape: tuple[int, ...]) -> NDArray[Any]:
        found = np.asarray(answer)
        if found.shape != shape:
            raise PluginError(f"Suite {self.suite.name!r} answers {question} with shape {found.shape}, not {shape}")
        if not np.isfinite(found).all():
            raise PluginError(f"Suite {self.suite.name!r} answers {question} with numbers that are not finite")
        return found
