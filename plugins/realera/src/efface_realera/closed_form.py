"""Stage 1: the concept and its neighbours become the anchor, what lies beyond stays, in one regression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

import efface
from efface.alignment import Aligned
from efface.solver import Columns, Problem

Invariants = Literal["none", "start", "empty", "whole"]


@dataclass(frozen=True, eq=False)
class Share:
    """What goes into the objective: soft columns, and the Gram matrix of what stays (weights included)."""

    soft: tuple[Columns, ...] = ()
    still: tuple[Tensor, ...] = ()

    def __add__(self, other: Share) -> Share:
        return Share((*self.soft, *other.soft), (*self.still, *other.still))


def wished(pairs: Aligned, weight: float) -> Share:
    """Each target becomes its anchor; the columns weigh `weight` together."""
    count = pairs.targets.shape[1]
    if not (weight and count):
        return Share()
    return Share(soft=(Columns.pairs(pairs.targets, pairs.anchors, torch.full((count,), weight / count)),))


def held(columns: Tensor, weight: float) -> Share:
    """weight mean_j |E c_j|^2 over columns (d, n): they stay."""
    if not (weight and columns.shape[1]):
        return Share()
    exact = columns.to("cpu", torch.float64)
    return Share(still=(exact @ exact.T * (weight / exact.shape[1]),))


def problem(share: Share, hard: Columns | None, ridge: float) -> Problem:
    """min_E sum_j w_j |E c_j - (a_j - c_j)|^2 + tr(E Pi E^T) + lamb |E|^2, subject to E c = a - c for the hard columns.

    Pi sums what is held, beyond-concept points and prior alike. lamb = ridge tr(M) / d with M the Gram matrix of all
    soft terms. Reconstruction, after the regressions of UCE and MACE: the paper's own objective is not public.
    """
    soft = Columns.joined(share.soft)
    pi = torch.stack(share.still).sum(0) if share.still else None
    energy = float((soft.inputs.square().sum(0) * soft.mass).sum()) + (0.0 if pi is None else float(pi.trace()))
    return Problem(lamb=ridge * energy / len(soft.inputs), soft=soft, hard=hard, gram=pi)


def exact(pairs: Aligned, name: str, share: float) -> Columns:
    """Hard columns for one concept: the leading directions of all its tokens (d, n) become those of their anchors.

    With targets C = U S V^T these are C v -> A v for every v whose singular value is at least `share` of the largest;
    a single token is itself. Reconstruction: the paper states no exact demands. To demand them of every token
    would ask nearly equal embeddings to become different ones, and the map would explode.
    """
    targets, anchors = (each.to("cpu", torch.float64) for each in (pairs.targets, pairs.anchors))
    _, sigma, right = torch.linalg.svd(targets, full_matrices=False)
    leading = right[sigma >= share * sigma[0]].T
    labels = [f"{name}, direction {index}" for index in range(leading.shape[1])]
    return Columns.pairs(targets @ leading, anchors @ leading, labels=labels)


def invariant(model: efface.Model, which: Invariants) -> Tensor:
    """Columns (d, k) of the empty prompt that never change: its start, a few of its tokens, all of them, or none."""
    empty = model.encode([""])
    tokens = list(range(empty.hidden.shape[1]))
    chosen = {"none": [], "start": tokens[:1], "empty": [0, *_spaced(tokens[1:])], "whole": tokens}[which]
    return empty.hidden[0, chosen].T


def left(delta: efface.LowRank | efface.Dense, pairs: Aligned) -> list[float]:
    """For each prompt the share of the way to its anchor that is left, over all its columns together."""
    targets, asked = pairs.targets.to("cpu", torch.float64), _change(pairs)
    missed = delta.dense().double() @ targets - asked
    each = [pairs.prompts == prompt for prompt in torch.unique(pairs.prompts).tolist()]
    return [float(missed[:, mine].norm() / asked[:, mine].norm().clamp_min(1e-30)) for mine in each]


def drift(delta: efface.LowRank | efface.Dense, columns: Tensor) -> float:
    """|E C| / |C|: how far these columns move on average, in shares of their length."""
    exact = columns.to("cpu", torch.float64)
    return float((delta.dense().double() @ exact).norm() / exact.norm()) if exact.numel() else 0.0


def _change(pairs: Aligned) -> Tensor:
    return pairs.anchors.to("cpu", torch.float64) - pairs.targets.to("cpu", torch.float64)


def _spaced(indices: Sequence[int]) -> list[int]:
    """The first two, then the first, the middle and the last of the others."""
    count = len(indices)
    wanted = {0, 1, 2, (count + 1) // 2, count - 1}
    return [indices[place] for place in sorted(wanted) if place < count]
