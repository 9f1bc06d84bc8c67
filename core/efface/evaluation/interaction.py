"""How the erasures of a stack act on each other's concepts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from efface.erasure import Erasure
from efface.evaluation.figures import lost
from efface.evaluation.intervals import rate
from efface.evaluation.scores import Alone, Estimate, Evaluation
from efface.evaluation.targets import Target, known
from efface.evaluation.viewing import View
from efface.evaluation.work import scored
from efface.suite import Suite


@dataclass(frozen=True)
class Matrix:
    """Concept x erasure: the share of pictures of each concept that show it.

    `columns`: the base, each erasure alone by its label, the stack; `rows` has an entry for each of them, by concept,
    and `lost` what all other concepts lost. None where the suite cannot tell, and what the base lost.
    """

    columns: tuple[str, ...]
    rows: dict[str, tuple[Estimate | None, ...]]
    lost: tuple[Estimate | None, ...]


def matrix(found: Evaluation) -> Matrix | None:
    """The matrix of an evaluation; None where nothing was seen alone."""
    if not found.alone:
        return None
    rows = {
        concept: (scores.efficacy_base, *(one.shown.get(concept) for one in found.alone), scores.efficacy)
        for concept, scores in found.concepts.items()
    }
    stack = next(iter(found.concepts.values())).specificity_drop
    columns = ("base", *(one.label for one in found.alone), "stack")
    return Matrix(columns, rows, (None, *(one.lost for one in found.alone), stack))


def alone(label: str, targets: Sequence[Target], own: Sequence[Target], before: View, after: View) -> Alone:
    """What an erasure did to the targets, of which some are its own."""
    shown = {target.concept.text: rate(after.shown(target.own, target.concept.text)) for target in targets}
    return Alone(
        label=label,
        concepts=scored(own, before, after),
        shown={name: found for name, found in shown.items() if found is not None},
        lost=lost(targets[0], before, after),
    )


def own(suite: Suite, erasure: Erasure, targets: Sequence[Target]) -> list[Target]:
    """The targets whose concepts an erasure is meant for."""
    erased = {known(suite, concept.text).text for concept in erasure.concepts}
    return [target for target in targets if target.concept.text in erased]
