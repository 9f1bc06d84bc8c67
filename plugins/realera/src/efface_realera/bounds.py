"""How near neighbours are, and how far what stays is: the cosines and the distance of a sampler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, Self

from efface_realera.window import Window

Sampler = Literal["snap", "covariance", "isotropic"]


@dataclass(frozen=True)
class Bounds:
    """Neighbours have cosines from `lowest` to `highest` to the concept, beyond-concept points from `floor` to `below`.

    `distance` limits both, in norms of the embedding.
    """

    highest: float
    lowest: float
    below: float
    floor: float
    distance: float

    def __post_init__(self) -> None:
        if not -1 <= self.floor < self.below <= self.lowest < self.highest <= 1:
            raise ValueError(
                "cosines in this order: s_floor < s_beyond <= s_lo < s_hi, "
                f"not {self.floor:g}, {self.below:g}, {self.lowest:g}, {self.highest:g}"
            )

    @classmethod
    def of(cls, sampler: Sampler, **given: float | None) -> Self:
        """A sampler's own bounds, with those that are given in their place."""
        return replace(cls(*USUAL[sampler]), **{name: value for name, value in given.items() if value is not None})

    @property
    def near(self) -> Window:
        return Window(self.highest, self.lowest, self.distance)

    @property
    def beyond(self) -> Window:
        return Window(self.below, self.floor, self.distance)


# isotropic: the constants of the only public code, a third party's port, whose D = 400 is 1.6 norms of SD 1.4's
# embeddings. covariance: the same cosines; its points lie farther out. snap: cosines of guidance directions, chosen on
# the embedded model, where synonyms had 0.99 and other words 0.68 at most. The last two are reconstructions.
USUAL: Mapping[Sampler, tuple[float, float, float, float, float]] = {
    "isotropic": (0.9, 0.5, 0.5, 0.0, 1.6),
    "covariance": (0.9, 0.5, 0.5, 0.0, 4.0),
    "snap": (1.0, 0.9, 0.8, -1.0, 4.0),
}
