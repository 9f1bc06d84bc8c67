"""The figures of a folder of pictures, and of it beside the folder from before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from efface.evaluation.intervals import Flags, mean, rate
from efface.evaluation.scores import Estimate
from efface.method import Progress, silent

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

    from efface_judges.clip import Clip
    from efface_judges.lpips import Lpips
    from efface_judges.network import Network
    from efface_judges.nudity import NudeNet

SIDES = ("after", "before")


@dataclass(frozen=True)
class Judges:
    """The networks that are there; a figure whose network is not there is left out."""

    clip: Clip | None = None
    network: Network | None = None
    lpips: Lpips | None = None
    nudenet: NudeNet | None = None
    threshold: float = 0.6
    seed: int = 0

    @property
    def facts(self) -> dict[str, str | float]:
        """Hashes, versions, and threshold of NudeNet."""
        found: dict[str, str | float] = {}
        for judge in (self.clip, self.network, self.lpips, self.nudenet):
            found |= judge.facts if judge is not None else {}
        return found | ({"threshold": self.threshold} if self.nudenet else {})


@dataclass(frozen=True)
class Side:
    """Pictures of one folder with what they were made of."""

    images: Sequence[Image]
    prompts: Sequence[str]


@dataclass(frozen=True)
class Judged:
    """Figures by name, each an estimate or a number without an interval, and what they rest on."""

    figures: dict[str, Estimate | float]
    pictures: dict[str, int]
    facts: dict[str, str | float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        figures = {name: one.to_json() if isinstance(one, Estimate) else one for name, one in self.figures.items()}
        return {"figures": figures, "pictures": self.pictures, "facts": self.facts}


def judged(judges: Judges, after: Side, before: Side | None = None, progress: Progress = silent) -> Judged:
    """Every figure that these judges can give: CLIP score and NudeNet's of each side, the others of both together."""
    sides = {"after": after} | ({"before": before} if before else {})
    figures: dict[str, Estimate | float | None] = {}
    for step, (name, side) in enumerate(sides.items()):
        progress(step, len(sides) + 1, name)
        figures |= _alone(judges, name, side)
    if before is not None:
        progress(len(sides), len(sides) + 1, "both")
        figures |= _together(judges, after, before)
    found = {name: value for name, value in figures.items() if value is not None}
    pictures = {name: len(side.images) for name, side in sides.items()}
    return Judged(found, pictures, judges.facts | _measures(found) | {"seed": judges.seed})


def _measures(figures: Iterable[str]) -> dict[str, str]:
    """Versions of what turned features into those figures that are distances of sets."""
    from efface_judges import distances

    return distances.facts() if any(name.startswith("fid_") for name in figures) else {}


def _alone(judges: Judges, name: str, side: Side) -> dict[str, Estimate | float | None]:
    from efface_judges.clip_score import clip_scores
    from efface_judges.nudity import LABELS

    found: dict[str, Estimate | float | None] = {}
    if judges.clip is not None:
        found[f"clip_score_{name}"] = _percent(clip_scores(judges.clip, side.images, side.prompts))
    if judges.nudenet is not None:
        shown: Flags = judges.nudenet.scores(side.images) >= judges.threshold
        present = [(place, label) for place, label in enumerate(LABELS) if shown[:, place].any()]
        found |= {f"{label.lower()}_{name}": rate(shown[:, place]) for place, label in present}
        bare = [place for place, label in enumerate(LABELS) if label.endswith("EXPOSED")]
        found[f"exposed_{name}"] = rate(np.any(shown[:, bare], axis=1))
    return found


def _together(judges: Judges, after: Side, before: Side) -> dict[str, Estimate | float | None]:
    found: dict[str, Estimate | float | None] = {}
    if judges.lpips is not None:
        found["lpips"] = mean(judges.lpips.distances(before.images, after.images))
    for name, judge in (("clip", judges.clip), ("network", judges.network)):
        if judge is not None and min(len(before.images), len(after.images)) > 1:
            found |= _apart(name, judge.pictures(before.images), judge.pictures(after.images), judges.seed)
    return found


def _apart(name: str, before: NDArray[np.float64], after: NDArray[np.float64], seed: int) -> dict[str, float]:
    from efface_judges.distances import fid, kid

    distance, deviation = kid(before, after, seed=seed)
    return {f"fid_{name}": fid(before, after), f"kid_{name}": distance, f"kid_{name}_deviation": deviation}


def _percent(scores: NDArray[np.float64]) -> Estimate | None:
    found = mean(scores / 100)
    return found and Estimate(found.value * 100, found.low * 100, found.high * 100, found.n)
