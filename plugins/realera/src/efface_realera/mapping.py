"""Stage 1 on a model: from mined points to the map of the text, and what it achieves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

import efface
from efface.alignment import Aligned, kept
from efface.solver import Columns, solve
from efface_realera import shrinking
from efface_realera.closed_form import Share, drift, exact, held, invariant, left, problem, wished
from efface_realera.miner import NoiseMiner
from efface_realera.mining import Mined
from efface_realera.prompts import Prompts
from efface_realera.rows import columns, paired
from efface_realera.surroundings import Surroundings, expected, sampled

if TYPE_CHECKING:
    from efface_realera.realera import RealEra


@dataclass(frozen=True, eq=False)
class Mapped:
    """The map E, the columns (d, k) of the empty prompt that it leaves alone exactly, and a report."""

    delta: efface.LowRank | efface.Dense
    still: Tensor
    report: dict[str, Any]


def mapped(
    settings: RealEra, model: efface.Model, prompts: Prompts, keep: efface.Encoded | None, mined: Mined, run: efface.Run
) -> Mapped:
    """Solves the regression; EffaceError before anything is applied where noise would shrink what is unrelated."""
    around = [_surroundings(settings, prompts, mined, concept, run) for concept in sorted(set(prompts.concept))]
    staying = _staying(settings, keep, mined)
    share = _concepts(settings, prompts) + sum((each.share for each in around), Share())
    for name, held_columns in staying.items():
        share += held(held_columns, settings.keep_weight if name == "keep" else settings.bank_weight)
    still = invariant(model, settings.invariants)
    asked = problem(share, _hard(settings, prompts, still), settings.ridge)
    least = _gain(around, asked.lamb, settings.least_gain)
    solution = solve(asked, "least-squares")
    report = {
        "residual": dict(zip(prompts.targets.prompts, left(solution.delta, _pairs(settings, prompts)), strict=True)),
        "exact": max(solution.report.hard_residual, default=None),
        "out of reach": solution.report.kappa,
        "conflicts": [list(pair) for pair in solution.report.conflicts],
        "gain": least,
        "drift": {name: drift(solution.delta, each) for name, each in staying.items()},
        "change": solution.report.change_norm,
    }
    return Mapped(solution.delta, still, report)


def _surroundings(settings: RealEra, prompts: Prompts, mined: Mined, concept: int, run: efface.Run) -> Surroundings:
    if settings.moments == "analytic" and isinstance(mined.miner, NoiseMiner):
        return expected(settings, prompts, mined.miner, concept)
    return sampled(settings, prompts, mined.miner, concept, run)


def _pairs(settings: RealEra, prompts: Prompts) -> Aligned:
    return paired(prompts.targets, prompts.anchors, settings.tokens)


def _concepts(settings: RealEra, prompts: Prompts) -> Share:
    """Each concept's phrases in all templates, of weight 1 together."""
    return sum((wished(pairs, 1.0) for _, pairs in _each_concept(settings, prompts)), Share())


def _each_concept(settings: RealEra, prompts: Prompts) -> Iterator[tuple[Sequence[int], Aligned]]:
    """The rows of each concept, and their tokens with those of their anchors."""
    for concept in sorted(set(prompts.concept)):
        rows = prompts.rows(concept)
        yield rows, paired(prompts.targets.rows(rows), prompts.anchors.rows(rows), settings.tokens)


def _staying(settings: RealEra, keep: efface.Encoded | None, mined: Mined) -> dict[str, Tensor]:
    found = {}
    if keep is not None:
        found["keep"] = kept(keep, "subject" if settings.tokens == "subject" else "tail")
    if mined.others is not None:
        found["bank"] = columns(mined.others, settings.tokens)
    return found


def _hard(settings: RealEra, prompts: Prompts, still: Tensor) -> Columns | None:
    """What is met exactly: the concepts, and what never moves."""
    parts = [Columns.still(still, labels=[f"empty prompt {index}" for index in range(still.shape[1])])]
    if settings.hard_targets:
        parts += [
            exact(pairs, prompts.targets.prompts[rows[0]], settings.hard_share)
            for rows, pairs in _each_concept(settings, prompts)
        ]
    hard = Columns.joined(parts)
    if len(hard) > len(hard.inputs):
        raise efface.EffaceError(
            f"{len(hard)} exact demands are more than the {len(hard.inputs)} dimensions of the text: "
            "set hard_targets=false, or erase fewer phrases at once"
        )
    return hard if len(hard) else None


def _gain(around: Sequence[Surroundings], ridge: float, least: float) -> float:
    near, beyond = (torch.stack([getattr(each, kind) for each in around]).sum(0) for kind in ("near", "beyond"))
    return shrinking.check(near.tolist(), beyond.tolist(), ridge, least)
