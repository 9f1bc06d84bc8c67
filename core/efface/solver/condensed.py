"""Many soft columns as few."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from efface.solver.columns import Columns
from efface.solver.errors import BadProblem


def condensed(parts: Iterable[Columns]) -> Columns:
    """At most d soft columns of weight 1 that have the same solution as all of these, which are never held at once.

    Directions whose share of the squares is below d * 2.2e-16 are left out: there is only rounding in them.

    Derived: in sum_j w_j |E c_j - b_j|^2 a map E meets the columns by C C^T and B C^T alone, the roots of the weights
    taken in. With C C^T = U s U^T the columns U s^(1/2), which change by B C^T U s^(-1/2), have both products.
    """
    gram = cross = None
    for part in parts:
        weighted = part.inputs * part.mass
        gram = weighted @ part.inputs.T if gram is None else gram.addmm_(weighted, part.inputs.T)
        cross = part.change @ weighted.T if cross is None else cross.addmm_(part.change, weighted.T)
    if gram is None or cross is None:
        raise BadProblem("condensed got no columns")
    share, basis = torch.linalg.eigh(gram)
    known = share > share[-1] * len(gram) * torch.finfo(gram.dtype).eps
    root, basis = share[known].sqrt(), basis[:, known]
    return Columns(basis * root, (cross @ basis) / root)
