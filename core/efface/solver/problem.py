"""What the solver is asked."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from efface.solver.columns import Columns, float64_matrix
from efface.solver.errors import BadProblem


@dataclass(frozen=True, eq=False, kw_only=True)
class Problem:
    """The map E (m, d) of least cost among those that meet the hard columns exactly.

    cost = sum_j w_j |E c_j - b_j|^2 + keep_weight sum_k |E k|^2 + tr(E gram E^T) + lamb |E|_F^2
    over the soft columns (c_j, b_j, w_j) and the columns k of `keep`, subject to E c = b for the hard ones.
    With changes "anchor - target" in the space of the inputs, W (I + E) is the edited weight of *every* layer
    that reads them: E does not depend on W.

    `keep` (d, p), `gram` (d, d) symmetric. `damping` > 0 trades exactness of the hard columns for a smaller E;
    invariants, the hard columns whose change is zero, stay exact.
    Singular values of the hard columns below `rtol` times the largest count as zero; default
    max(d, n) * 2.2e-15. Hard columns with 1 - |cos| < `merge` and changes that agree are one demand: their mean
    is met exactly, each of them up to its distance from it, which is sqrt(2 merge) of its norm. The default is
    the noise of float32 features; 1e-6 is that of half precision, 0 merges nothing.
    BadProblem names what does not fit.

    Source: hard columns with `lamb` alone are ErasePro's constrained least squares (arXiv 2508.04472, known to us
    through a secondary source); keep, gram and the mix of soft and hard columns are derived here.
    """

    lamb: float
    soft: Columns | None = None
    hard: Columns | None = None
    keep: Tensor | None = None
    keep_weight: float = 1.0
    gram: Tensor | None = None
    damping: float = 0.0
    rtol: float | None = None
    merge: float = 1e-12

    def __post_init__(self) -> None:
        for name in ("lamb", "keep_weight", "damping", "rtol", "merge"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise BadProblem(f"Problem {name} is {value}, not a finite number >= 0")
        for name in ("soft", "hard"):
            columns = getattr(self, name)
            object.__setattr__(self, name, columns if columns is not None and len(columns) else None)
        _, d = self.shape
        _meetable(self.hard)
        object.__setattr__(self, "keep", _keep(self.keep, d))
        object.__setattr__(self, "gram", _gram(self.gram, d))

    @property
    def shape(self) -> tuple[int, int]:
        """(m, d), the shape of E."""
        shapes = {columns.shape for columns in (self.soft, self.hard) if columns is not None}
        if not shapes:
            raise BadProblem("Problem has no columns: give soft or hard ones")
        if len(shapes) > 1:
            raise BadProblem(f"Problem soft and hard columns differ in shape (m, d): {sorted(shapes)}")
        return shapes.pop()


def _meetable(hard: Columns | None) -> None:
    if hard is None:
        return
    if hard.weights is not None:
        raise BadProblem("Problem hard columns take no weights: they are met exactly")
    for index in (~hard.inputs.any(0) & hard.change.any(0)).nonzero().flatten().tolist():
        raise BadProblem(f"Problem hard column {hard.labels[index]!r} is zero: no map can change it")


def _keep(keep: Tensor | None, d: int) -> Tensor | None:
    if keep is None:
        return None
    keep = float64_matrix("Problem keep", keep)
    if keep.shape[0] != d:
        raise BadProblem(f"Problem keep has {keep.shape[0]} rows, the columns have {d}")
    if not keep.isfinite().all():
        raise BadProblem("Problem keep is not finite")
    return keep if keep.shape[1] else None


def _gram(gram: Tensor | None, d: int) -> Tensor | None:
    if gram is None:
        return None
    gram = float64_matrix("Problem gram", gram)
    if gram.shape != (d, d):
        raise BadProblem(f"Problem gram has shape {tuple(gram.shape)}, not {(d, d)}")
    if not gram.isfinite().all():
        raise BadProblem("Problem gram is not finite")
    if float((gram - gram.T).abs().max()) > 1e-5 * float(gram.abs().max()):
        raise BadProblem("Problem gram is not symmetric")
    return (gram + gram.T) / 2
