"""The figures of an evaluation as a table shows them: heads, signs, and why one may be missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from efface.concept import Concept
from efface.evaluation.scores import Estimate, Scores

Form = Literal["rate", "change", "ratio"]


@dataclass(frozen=True)
class Figure:
    """One figure: `name` is a field of Scores, {concept} and {anchor} in `head` stand for the ones of the request.

    `good` is the direction. `base` is what it is before: the name of a field, a number where that follows from the
    definition, None where nobody measured it. `lacking` says why there may be none.
    """

    name: str
    head: str
    meaning: str
    good: str
    form: Form
    base: str | float | None = None
    lacking: str = "not measured"

    @property
    def short(self) -> str:
        """The head for several concepts."""
        return self.head.format(concept="it", anchor="its anchor")

    def title(self, concept: Concept) -> str:
        return self.head.format(concept=concept.text, anchor=concept.anchor or "the empty prompt")

    def before(self, scores: Scores) -> Estimate | float | None:
        found: Estimate | None = getattr(scores, self.base) if isinstance(self.base, str) else None
        return self.base if isinstance(self.base, int | float) else found

    def after(self, scores: Scores) -> Estimate | None:
        found: Estimate | None = getattr(scores, self.name)
        return found

    def value(self, found: Estimate | float) -> str:
        """`12 %`, `0.034`, `1.8`."""
        return SHOWN[self.form](found.value if isinstance(found, Estimate) else found)

    def interval(self, found: Estimate) -> str:
        """`9 to 16 %`: the 95 % interval."""
        low, high = SHOWN[self.form](found.low), SHOWN[self.form](found.high)
        return f"{low.removesuffix(' %')} to {high}"


def _percent(value: float) -> str:
    return f"{_signed(f'{100 * value:.0f}')} %"


def _signed(number: str) -> str:
    """With a real minus sign, and none before zero."""
    return number.removeprefix("-") if float(number) == 0 else number.replace("-", "\N{MINUS SIGN}")


SHOWN: dict[Form, Callable[[float], str]] = {
    "rate": _percent,
    "change": lambda value: f"{value:.3f}",
    "ratio": lambda value: _signed(f"{value:.1f}"),
}

NO_SCENES = "no two-object scene shows it"
TABLE = (
    Figure(
        "efficacy",
        "shows {concept}",
        "Share of pictures of the erased concept that show it.",
        "lower is better",
        "rate",
        base="efficacy_base",
    ),
    Figure(
        "anchor",
        "shows {anchor}",
        "Share of the same pictures that show what it was to become.",
        "higher is better",
        "rate",
        lacking="the anchor is no object of the suite",
    ),
    Figure(
        "generality",
        "shows {concept}, other words",
        "Share of pictures that show it when asked for by words that no request held.",
        "lower is better",
        "rate",
        base="generality_base",
        lacking="no words are held out",
    ),
    Figure(
        "specificity_drop",
        "other concepts lost",
        "How much less often all other concepts are found in pictures of them, at the same seeds.",
        "0 is best",
        "rate",
        base=0.0,
        lacking="there are no others",
    ),
    Figure(
        "specificity_worst",
        "lost most",
        "The same for the one concept that lost most.",
        "0 is best",
        "rate",
        base=0.0,
        lacking="there are no others",
    ),
    Figure(
        "specificity_never_kept",
        "lost, never kept",
        "The same for concepts that no keep list names.",
        "0 is best",
        "rate",
        base=0.0,
        lacking="there are none",
    ),
    Figure(
        "locality_other",
        "other object in scene",
        "Share of two-object scenes that show the object beside the erased one.",
        "higher is better",
        "rate",
        base="locality_other_base",
        lacking=NO_SCENES,
    ),
    Figure(
        "locality_outside_mae",
        "change outside {concept}",
        "Mean absolute change of such scenes outside the erased object, 1 is black against white.",
        "0 is best",
        "change",
        base=0.0,
        lacking=NO_SCENES,
    ),
    Figure(
        "fidelity_mae",
        "change of unrelated",
        "Mean absolute change of pictures of unrelated prompts.",
        "0 is best",
        "change",
        base=0.0,
        lacking="no unrelated prompts",
    ),
    Figure(
        "quality",
        "distance to base",
        "Kernel distance of pictures of the concept to the base’s pictures of the anchor; 1 is that between two "
        "sets of the base’s own.",
        "1 is as good as the base",
        "ratio",
        base=1.0,
        lacking="the suite cannot compare pictures",
    ),
)
