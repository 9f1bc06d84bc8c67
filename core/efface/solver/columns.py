"""Features and the change that is asked of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from efface.solver.errors import BadProblem


@dataclass(frozen=True, eq=False)
class Columns:
    """Features and what a map E has to make of them: E inputs[:, j] = change[:, j], one label each.

    `inputs` (d, n) and `change` (m, n) are kept in float64 on the CPU whatever they come in; `weights` (n,),
    where given, are non-negative. Without labels the columns are called "0", "1", ... BadProblem names what
    does not fit.
    """

    inputs: Tensor
    change: Tensor
    weights: Tensor | None = None
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        inputs = float64_matrix("Columns inputs", self.inputs)
        change = float64_matrix("Columns change", self.change)
        count = inputs.shape[1]
        if change.shape[1] != count:
            raise BadProblem(f"Columns change has {change.shape[1]} columns, inputs have {count}")
        labels = tuple(self.labels) or tuple(str(index) for index in range(count))
        if len(labels) != count:
            raise BadProblem(f"Columns got {len(labels)} labels for {count} columns")
        _finite("inputs", inputs, labels)
        _finite("change", change, labels)
        object.__setattr__(self, "inputs", inputs)
        object.__setattr__(self, "change", change)
        object.__setattr__(self, "labels", labels)
        if self.weights is not None:
            object.__setattr__(self, "weights", _weights(self.weights, labels))

    @classmethod
    def pairs(
        cls, targets: Tensor, anchors: Tensor, weights: Tensor | None = None, labels: Sequence[str] = ()
    ) -> Columns:
        """What moves each target onto its anchor, both (d, n): change = anchor - target, in float64."""
        targets = float64_matrix("Columns targets", targets)
        anchors = float64_matrix("Columns anchors", anchors)
        if targets.shape != anchors.shape:
            raise BadProblem(f"Columns targets {tuple(targets.shape)} and anchors {tuple(anchors.shape)} differ")
        return cls(targets, anchors - targets, weights, tuple(labels))

    @classmethod
    def still(
        cls,
        inputs: Tensor,
        weights: Tensor | None = None,
        labels: Sequence[str] = (),
        *,
        outputs: int | None = None,
    ) -> Columns:
        """Invariants: columns whose change is zero, in `outputs` (default d) dimensions.

        Derived: an invariant is a demand whose change is zero.
        """
        inputs = float64_matrix("Columns inputs", inputs)
        rows = inputs.shape[0] if outputs is None else outputs
        return cls(inputs, inputs.new_zeros(rows, inputs.shape[1]), weights, tuple(labels))

    @classmethod
    def joined(cls, parts: Sequence[Columns]) -> Columns:
        """All columns of all parts, in order; a part without weights weighs 1 where another part has some."""
        if not parts:
            raise BadProblem("Columns.joined got no columns to join")
        shapes = sorted({part.shape for part in parts})
        if len(shapes) > 1:
            raise BadProblem(f"Columns of different shapes (m, d) cannot be joined: {shapes}")
        weighted = any(part.weights is not None for part in parts)
        return cls(
            torch.cat([part.inputs for part in parts], 1),
            torch.cat([part.change for part in parts], 1),
            torch.cat([part.mass for part in parts]) if weighted else None,
            tuple(label for part in parts for label in part.labels),
        )

    def __len__(self) -> int:
        return self.inputs.shape[1]

    @property
    def shape(self) -> tuple[int, int]:
        """(m, d), the shape of a map that takes `inputs` to `change`."""
        return (self.change.shape[0], self.inputs.shape[0])

    @property
    def asking(self) -> Columns:
        """The columns with a change and a weight other than zero."""
        return replace(self, weights=self.mass).part(self.change.any(0) & (self.mass > 0))

    def part(self, chosen: Tensor) -> Columns:
        """The columns where `chosen` (n,) is True."""
        labels = tuple(label for label, taken in zip(self.labels, chosen.tolist(), strict=True) if taken)
        weights = None if self.weights is None else self.weights[chosen]
        return Columns(self.inputs[:, chosen], self.change[:, chosen], weights, labels)

    @property
    def mass(self) -> Tensor:
        """The weights (n,), ones where none were given."""
        return self.inputs.new_ones(len(self)) if self.weights is None else self.weights


def float64_matrix(name: str, value: Tensor) -> Tensor:
    """`value` in float64 on the CPU; BadProblem names it unless it is a floating-point matrix."""
    if value.ndim != 2 or not value.is_floating_point():
        raise BadProblem(f"{name} must be a floating-point matrix, not {value.dtype} {tuple(value.shape)}")
    return value.detach().to("cpu", torch.float64)


def _finite(name: str, matrix: Tensor, labels: Sequence[str]) -> None:
    bad = (~matrix.isfinite().all(0)).nonzero().flatten().tolist()
    if bad:
        raise BadProblem(f"Columns {name}: column {labels[bad[0]]!r} is not finite ({len(bad)} such columns)")


def _weights(weights: Tensor, labels: Sequence[str]) -> Tensor:
    if weights.shape != (len(labels),):
        raise BadProblem(f"Columns weights have shape {tuple(weights.shape)}, not ({len(labels)},)")
    weights = weights.detach().to("cpu", torch.float64)
    for label, weight in zip(labels, weights.tolist(), strict=True):
        if not 0 <= weight < float("inf"):
            raise BadProblem(f"Columns weights: column {label!r} has weight {weight}, not a finite number >= 0")
    return weights
