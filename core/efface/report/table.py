"""The figures of all methods as the cells of one table."""

from __future__ import annotations

from dataclasses import dataclass

from efface.evaluation.scores import Estimate, Scores
from efface.report.demonstration import Demonstration, Failure, Outcome, Result, Skipped
from efface.report.figure import TABLE, Figure
from efface.wording import seconds

DASH = "\N{EN DASH}"


@dataclass(frozen=True)
class Cell:
    """A value, and beneath it lines that say its interval and its n, or why there is none."""

    value: str
    small: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """A method with its cells; where it has none, `said` says why."""

    name: str
    note: str = ""
    cells: tuple[Cell, ...] = ()
    said: str = ""


def rows(found: Demonstration) -> list[Row]:
    """The base first, then every method; the base's values are only there where something was measured."""
    measured = [scores for outcome in found.outcomes if (scores := found.scores(outcome))]
    base = [Row("before", "the base model", tuple(_before(one, measured[0]) for one in TABLE))] if measured else []
    return base + [_row(found, result) for result in found.results]


def _row(found: Demonstration, result: Result) -> Row:
    if isinstance(result, Skipped):
        return Row(result.method, said=f"Not run: {result.why}.")
    if isinstance(result, Failure):
        during = f" during {result.part}" if result.part else ""
        return Row(result.method, said=f"Failed{during}. {result.error}")
    scores = found.scores(result)
    return Row(result.method, _note(result), tuple(_after(one, scores) for one in TABLE) if scores else ())


def _note(outcome: Outcome) -> str:
    return f"fitted file {outcome.file}" if outcome.file else f"fitted in {seconds(outcome.seconds['fit'])}"


def _before(figure: Figure, scores: Scores) -> Cell:
    value = figure.before(scores)
    if value is None:
        return Cell(DASH, ("not measured" if figure.after(scores) else figure.lacking,))
    return Cell(figure.value(value), ("by definition",) if isinstance(value, float) else _interval(figure, value))


def _after(figure: Figure, scores: Scores) -> Cell:
    found = figure.after(scores)
    if found is None:
        return Cell(DASH, (figure.lacking,))
    worst = (scores.worst,) if figure.name == "specificity_worst" and scores.worst else ()
    return Cell(figure.value(found), (*worst, *_interval(figure, found)))


def _interval(figure: Figure, found: Estimate) -> tuple[str, ...]:
    return figure.interval(found), f"n {found.n}"
