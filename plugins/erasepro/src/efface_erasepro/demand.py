"""What is asked of one module: the features of a batch there, as columns for the solver."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from efface.solver import Columns, Prices, Problem, prices, solve
from efface_erasepro.batch import Batch


@dataclass(frozen=True)
class Terms:
    """What the closing step may do: the weight of staying close, what exactness may cost, whether to refuse conflicts.

    `budget` is a share of the energy of all that is kept; inf for any price. `singly` is the weight of every token
    beside the average it belongs to.
    """

    ridge: float
    budget: float
    refuse: bool
    singly: float = 0.0

    @classmethod
    def of(cls, ridge: float, budget: float | None, conflicts: str, singly: float) -> Terms:
        return cls(ridge, math.inf if budget is None else budget, conflicts == "refuse", singly)


@dataclass(frozen=True, eq=False)
class Demand:
    """The columns of one module, each weighing as many tokens as it stands for.

    `tokens`: targets as they have become, onto their anchors as they were; `erased`: the same, the tokens of one column
    averaged. `kept` (None where nothing is) and `still`: kept prompts and invariants, back onto what they were;
    `still_base` is what they were. Singular values below `rtol` of the largest are noise of the features' dtype.
    """

    tokens: Columns
    erased: Columns
    kept: Columns | None
    still: Columns
    still_base: Tensor
    rtol: float | None

    @classmethod
    def of(cls, batch: Batch, x: Tensor, keep_weight: float) -> Demand:
        """The columns of a batch in features x (B, T, d), or x (B, d) of the batch's `pooled` form."""
        still, still_base = batch.still.features(x), batch.base(batch.still).features(x)
        targets, anchors = batch.targets.features(x), batch.anchors.features(x)
        kept = None
        if len(batch.kept) and keep_weight:
            weights = keep_weight * batch.kept.weights
            kept = Columns.pairs(batch.kept.features(x), batch.base(batch.kept).features(x), weights)
        tokens = Columns.pairs(targets, anchors, batch.targets.weights, batch.labels)
        return cls(
            tokens=tokens,
            erased=averaged(tokens, batch.columns, batch.column_labels),
            kept=kept,
            still=Columns.pairs(still, still_base, labels=batch.still_labels),
            still_base=still_base,
            rtol=cls.noise(x.dtype),
        )

    @staticmethod
    def noise(dtype: torch.dtype) -> float | None:
        """What share of the largest singular value is noise of features of a dtype; None for the solver's own."""
        return None if dtype == torch.float64 else 10 * torch.finfo(dtype).eps

    def damped(self, ridge: float, damping: float) -> Problem:
        """All targets onto their anchors, exactly or damped; kept features at a price, invariants exactly.

        Source: the constrained least squares that a secondary source quotes from the paper is the case without kept
        prompts and damping; both are derived extensions.
        """
        still = Columns.still(self.still_base, labels=self.still.labels)
        return replace(self.strict(ridge), hard=Columns.joined([still, self.wishes]), damping=damping)

    def strict(self, ridge: float) -> Problem:
        """Invariants and all targets exactly, in this order; kept features at a price."""
        hard = Columns.joined([self.still, self.wishes])
        return Problem(lamb=self._lamb(ridge), soft=self.kept, hard=hard, rtol=self.rtol)

    def closing(self, terms: Terms) -> tuple[Problem, Prices]:
        """Invariants and as many targets as the budget pays for, exactly; the others softly. And all their prices.

        ConflictError, naming them, where not all can be met and terms refuse that. Reconstruction: what to do where
        exactness would ruin everything else is ours.
        """
        strict = replace(self.strict(terms.ridge), soft=self._soft(terms.singly))
        if terms.refuse:
            solve(strict, "raise")
        found = prices(strict, terms.budget)
        weights = torch.cat([self.still.mass, self.erased.mass])
        hard = Columns.joined([self.still, self.wishes])
        left = replace(hard, weights=weights).part(~found.met)
        soft = Columns.joined([left] if strict.soft is None else [strict.soft, left])
        return replace(strict, hard=hard.part(found.met), soft=soft), found

    @property
    def wishes(self) -> Columns:
        """The erased columns as hard ones: without weights."""
        return replace(self.erased, weights=None)

    def _soft(self, singly: float) -> Columns | None:
        """What is kept and, where they are averaged, the tokens themselves."""
        if not singly or self.tokens is self.erased:
            return self.kept
        tokens = replace(self.tokens, weights=singly * self.tokens.mass)
        return tokens if self.kept is None else Columns.joined([self.kept, tokens])

    def _lamb(self, ridge: float) -> float:
        """`ridge` times the energy per dimension of all erased and kept columns; derived: blind to their scale."""
        columns = [part for part in (self.erased, self.kept) if part is not None]
        energy = sum(float((part.inputs.square().sum(0) * part.mass).sum()) for part in columns)
        return ridge * energy / self.erased.inputs.shape[0]


def averaged(tokens: Columns, columns: Tensor, labels: tuple[str, ...]) -> Columns:
    """Tokens by column, `columns` (n,) saying which: their weighted mean, which weighs as much as all of them.

    Reconstruction: a map of d dimensions cannot serve hundreds of tokens one by one; derived: it is linear, so what
    it does to their mean is the mean of what it does to them.
    """
    if len(labels) == len(tokens):
        return tokens
    mass = tokens.mass.new_zeros(len(labels)).index_add_(0, columns, tokens.mass)
    share = tokens.mass.new_zeros(len(tokens), len(labels))
    share[torch.arange(len(tokens)), columns] = tokens.mass / mass[columns]
    return Columns(tokens.inputs @ share, tokens.change @ share, mass, labels)
