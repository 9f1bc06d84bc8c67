"""Hard columns that ask for the same thing twice, or for two things at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self, get_args

import torch
from torch import Tensor

from efface.solver.columns import Columns
from efface.solver.errors import BadProblem, ConflictError
from efface.solver.span import Span

Policy = Literal["raise", "least-squares"]

COLLINEAR = 1e-4  # 1 - |cos| below which different changes explode: measured on CLIP-like features
GAIN = 10.0  # two collinear columns agree if telling them apart takes a gain of E no larger than this
SLACK = 1e-5  # changes that differ by less than this share are equal: the residual a float32 weight is promised
KAPPA = 1e-6  # share of the demanded changes that no map can meet, above which there is a conflict


@dataclass(frozen=True, eq=False)
class Comparison:
    """Which of the columns are collinear and whether their changes agree, (n, n) each, blind to scale and sign.

    A column c with change b demands of E the same as 2c with 2b or -c with -b, so both are divided by |c|
    first. Changes agree when they differ no more than the inputs do, up to the factor GAIN (times the gain
    |b|/|c| that is usual among the columns, where that is above the 1 of the identity): such a pair is harmless,
    however close (derived).
    """

    columns: Columns
    gap: Tensor
    """1 - |cos|."""
    sign: Tensor
    agree: Tensor

    @classmethod
    def of(cls, columns: Columns) -> Self:
        norm = columns.inputs.norm(dim=0)
        unit = torch.where(norm > 0, 1 / norm, 0)
        inputs, change = columns.inputs * unit, columns.change * unit
        cos = inputs.T @ inputs
        sign = torch.where(cos < 0, -1.0, 1.0).to(cos)
        gap = (1 - cos.abs()).clamp_min(0)
        usual = _usual_gain(columns.asking)
        size = change.norm(dim=0)
        slack = SLACK * torch.maximum(size, size[:, None]).clamp_min(usual)
        limit = GAIN * max(usual, 1.0) * (2 * gap).sqrt() + slack
        return cls(columns, gap, sign, _distances(change, sign) <= limit)

    @property
    def clashes(self) -> Tensor:
        """(n, n), True for collinear columns whose changes disagree."""
        return (self.gap < COLLINEAR) & ~self.agree

    def conflicts(self) -> tuple[tuple[str, str], ...]:
        """The label pairs of collinear columns whose changes disagree, each pair once."""
        labels = self.columns.labels
        found = self.clashes.triu(1).nonzero().tolist()
        return tuple(dict.fromkeys((labels[i], labels[j]) for i, j in found))

    def groups(self, tolerance: float) -> list[list[int]]:
        """The columns in groups that are one demand; only where every pair of a group is close and agrees."""
        same = (self.gap < tolerance) & self.agree
        same.fill_diagonal_(True)
        if int(same.sum()) == len(same):
            return [[index] for index in range(len(same))]
        groups: list[list[int]] = []
        seen: set[int] = set()
        for index, row in enumerate(same):
            if index in seen:
                continue
            group = row.nonzero().flatten()
            members = group.tolist() if bool((same[group] == row).all()) else [index]
            seen.update(members)
            groups.append(members)
        return groups


def check_policy(policy: str) -> None:
    if policy not in get_args(Policy):
        raise BadProblem(f"conflicts is {policy!r}; it can be: {', '.join(get_args(Policy))}")


def merged(comparison: Comparison, tolerance: float) -> Columns:
    """One column for each group that is one demand: group @ u with u a unit vector, u_j = +-|c_j| / norm.

    Exactly repeated columns give exactly the solution they would give separately, damped and least-squares
    solutions included; noise between them is averaged instead of amplified.
    """
    columns, groups = comparison.columns, comparison.groups(tolerance)
    if len(groups) == len(columns):
        return columns
    norm = columns.inputs.norm(dim=0)
    mixing = norm.new_zeros(len(columns), len(groups))
    for index, group in enumerate(groups):
        share = comparison.sign[group[0], group] * norm[group] if len(group) > 1 else norm.new_ones(1)
        mixing[group, index] = share / share.norm()
    labels = tuple(columns.labels[group[0]] for group in groups)
    return Columns(columns.inputs @ mixing, columns.change @ mixing, labels=labels)


def pair_error(pairs: tuple[tuple[str, str], ...]) -> ConflictError:
    shown = "; ".join(f"{one!r} and {other!r}" for one, other in pairs[:10])
    more = f"; and {len(pairs) - 10} more pairs" if len(pairs) > 10 else ""
    return ConflictError(
        f"Hard columns ask one feature to become two things: {shown}{more}. Give them one anchor, make one of "
        "them soft, or pass conflicts='least-squares' (with damping, if they are close but not equal)",
        pairs,
    )


def rank_error(span: Span) -> ConflictError:
    """No pair is to blame: more is demanded than the columns have dimensions for."""
    worst = span.misfit.argsort(descending=True)[:5].tolist()
    named = ", ".join(repr(span.hard.labels[index]) for index in worst)
    return ConflictError(
        f"{len(span.hard)} hard columns span only {span.rank} dimensions and their changes do not fit together: "
        f"{span.kappa:.1e} of them is out of reach (kappa), most at {named}. Use fewer hard columns, make some "
        "soft, or pass conflicts='least-squares'",
        kappa=span.kappa,
    )


def _usual_gain(asking: Columns) -> float:
    """sqrt(sum |b|^2 / sum |c|^2)."""
    return float(asking.change.norm() / asking.inputs.norm()) if len(asking) else 0.0


def _distances(change: Tensor, sign: Tensor) -> Tensor:
    """|b_i - sign_ij b_j|, through inner products: memory stays n^2 when all columns are collinear."""
    inner = change.T @ change
    square = inner.diagonal()
    return (square + square[:, None] - 2 * sign * inner).clamp_min(0).sqrt()
