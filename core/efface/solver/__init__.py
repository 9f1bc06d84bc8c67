"""The closed-form solver: one linear map from weighted wishes, exact demands and what has to stay."""

from efface.solver.closed_form import Solution, solve
from efface.solver.columns import Columns
from efface.solver.conflicts import Policy
from efface.solver.errors import BadProblem, ConflictError, SingularError
from efface.solver.problem import Problem
from efface.solver.report import Report, residual

__all__ = [
    "BadProblem",
    "Columns",
    "ConflictError",
    "Policy",
    "Problem",
    "Report",
    "SingularError",
    "Solution",
    "residual",
    "solve",
]
