"""What the solver refuses."""

from __future__ import annotations

from efface.errors import EffaceError


class BadProblem(EffaceError, ValueError):
    """Columns or a problem of the wrong shape, type or value."""


class SingularError(EffaceError):
    """Some change costs nothing, so that the best one is not determined."""


class ConflictError(EffaceError):
    """Hard columns that cannot be met together: `pairs` of labels, and `kappa`, the share out of reach.

    `kappa` is None when collinear pairs were found, before anything was factored.
    """

    def __init__(self, message: str, pairs: tuple[tuple[str, str], ...] = (), kappa: float | None = None) -> None:
        super().__init__(message)
        self.pairs = pairs
        self.kappa = kappa
