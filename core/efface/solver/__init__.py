"""The closed-form solver: one linear map from weighted wishes, exact demands and what has to stay."""

from efface.solver.closed_form import Solution, solve
from efface.solver.columns import Columns
from efface.solver.condensed import condensed
from efface.solver.conflicts import Policy
from efface.solver.duals import duals, through_duals
from efface.solver.errors import BadProblem, ConflictError, SingularError
from efface.solver.metric import Metric
from efface.solver.prices import Prices, prices
from efface.solver.problem import Problem
from efface.solver.report import Report, residual

__all__ = [
    "BadProblem",
    "Columns",
    "ConflictError",
    "Metric",
    "Policy",
    "Prices",
    "Problem",
    "Report",
    "SingularError",
    "Solution",
    "condensed",
    "duals",
    "prices",
    "residual",
    "solve",
    "through_duals",
]
