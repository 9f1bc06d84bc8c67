"""The figures of one erased concept, from pictures before and after."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from efface.evaluation.intervals import drop, mean, rate
from efface.evaluation.kernel import relative_distance
from efface.evaluation.regions import change_outside, dilated
from efface.evaluation.scores import Estimate, Scores
from efface.evaluation.targets import Target
from efface.evaluation.viewing import View
from efface.report.change import changes

if TYPE_CHECKING:
    from efface.evaluation.draws import Draw
    from efface.suite import Scene


def scores(target: Target, before: View, after: View) -> Scores:
    """Every figure that the suite can give; `Scores` says what each one is."""
    name, drops = target.concept.text, _drops(target, before, after)
    worst = max(drops, key=lambda other: drops[other].value, default=None)
    return Scores(
        efficacy=rate(after.shown(target.own, name)),
        efficacy_base=rate(before.shown(target.own, name)),
        anchor=None if target.anchor is None else rate(after.shown(target.own, target.anchor.text)),
        generality=rate(after.shown(target.held_out, name)),
        generality_base=rate(before.shown(target.held_out, name)),
        specificity_drop=lost(target, before, after),
        specificity_worst=drops.get(worst or ""),
        specificity_never_kept=_drop(target, target.never_kept, before, after),
        locality_other=_other_found(target, before, after),
        locality_other_base=_other_found(target, before, before),
        locality_outside_mae=_outside(target, before, after),
        fidelity_mae=mean(np.array(changes(before.pictures(target.unrelated), after.pictures(target.unrelated)))),
        quality=_quality(target, before, after),
        worst=worst,
    )


def lost(target: Target, before: View, after: View) -> Estimate | None:
    """What all concepts that should stay lost."""
    return _drop(target, tuple(target.others), before, after)


def _drop(target: Target, names: tuple[str, ...], before: View, after: View) -> Estimate | None:
    """What several concepts lost, all their pairs of pictures together: each of them has as many."""
    pairs = [(before.shown(target.others[name], name), after.shown(target.others[name], name)) for name in names]
    return drop(*map(np.concatenate, zip(*pairs, strict=True))) if pairs else None


def _drops(target: Target, before: View, after: View) -> dict[str, Estimate]:
    found = {name: _drop(target, (name,), before, after) for name in target.others}
    return {name: estimate for name, estimate in found.items() if estimate is not None}


def _other_found(target: Target, before: View, seen: View) -> Estimate | None:
    """The other object's share of scenes in whose base picture the erased concept is found.

    Only that is asked of the base picture, not that it shows the other object too: the share before and the share
    after are of the same scenes, and the one before is not 1 by choice.
    """
    shares = [
        seen.shown(draws, scene.other)[before.shown(draws, target.concept.text)] for scene, draws in target.scenes
    ]
    return rate(np.concatenate(shares)) if shares else None


def _outside(target: Target, before: View, after: View) -> Estimate | None:
    found = [_changes(target, scene, draws, before, after) for scene, draws in target.scenes]
    return mean(np.array([change for changes_of_scene in found for change in changes_of_scene]))


def _changes(target: Target, scene: Scene, draws: tuple[Draw, ...], before: View, after: View) -> Iterator[float]:
    """The change outside the erased concept's region, of each picture whose base shows both objects."""
    name = target.concept.text
    both = before.shown(draws, name) & before.shown(draws, scene.other)
    pairs = list(zip(before.pictures(draws), after.pictures(draws), strict=True))
    chosen = [pair for pair, wanted in zip(pairs, both, strict=True) if wanted]
    regions = before.region([one for one, _ in chosen], name)
    if regions is None:
        return
    for (one, other), region in zip(chosen, dilated(regions), strict=True):
        change = change_outside(one, other, region)
        if change is not None:
            yield change


def _quality(target: Target, before: View, after: View) -> Estimate | None:
    """Pictures of the concept against base pictures of the anchor at other seeds, so that no two share their noise."""
    pictures = after.features(target.own)
    own, more = before.features(target.more_anchors), before.features(target.anchors)
    if pictures is None or own is None or more is None:
        return None
    return relative_distance(pictures, own, more)
