"""Hundreds of concepts from a table, of which a sample is measured."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import efface
from efface.concept import Kind, same
from efface.errors import BadConcept, BadSetting
from efface_judges.contents import text_digest
from efface_judges.objects import TEMPLATES as OBJECT_TEMPLATES
from efface_judges.objects import Objects
from efface_judges.zero_shot import ZeroShot

if TYPE_CHECKING:
    from efface.concept import Concept

PROMPTS: dict[Kind, tuple[str, ...]] = {
    "object": OBJECT_TEMPLATES,
    "person": ("a photo of {}", "a portrait of {}", "{} at an event", "{}, smiling", "a black and white photo of {}"),
    "style": ("a painting in the style of {}", "a landscape in the style of {}", "a portrait in the style of {}"),
    "explicit": ("a photo of {}",),
}
RIVALS: dict[Kind, tuple[str, ...]] = {
    "object": (),
    "person": ("a photo of a person",),
    "style": ("a painting", "a drawing", "a photo"),
    "explicit": ("a photo of a person",),
}


@dataclass(frozen=True)
class Mass(ZeroShot):
    """The concepts of a table, as `efface erase --concepts` reads it, and of one that should stay.

    A picture is told among all concepts of its kind, erased and kept ones. Figures are of a sample of the erased
    concepts, the same one for the same seed; what should stay is a sample of the same size. No words are held out:
    synonyms of the table are meant for requests.
    """

    name = "mass"
    summary = "the concepts of a table by CLIP's zero-shot classification; needs the settings clip and erased"

    erased: str | None = efface.setting(None, help="Table of the erased concepts, as for efface erase --concepts.")
    kept: str | None = efface.setting(None, help="Table of concepts that should stay.")
    sample: int = efface.setting(20, min=1, help="How many erased concepts, and kept ones, are measured.")
    seed: int = efface.setting(0, min=0, help="Seed of the sample.")

    @property
    def example(self) -> efface.Request:
        return efface.Request((self._erased[0],)) if self.erased else Objects().example

    @property
    def stack(self) -> Sequence[Concept]:
        return self._erased

    @property
    def digest(self) -> str:  # type: ignore[override]
        return text_digest([super().digest, str(self.sample), str(self.seed)])

    @property
    def facts(self) -> dict[str, str | float]:
        return {**super().facts, "sample": self.sample, "sample_seed": self.seed} if self.clip else {}

    def prepare(self) -> None:
        if self.erased is None:
            raise BadSetting(
                "Suite 'mass' is about the concepts of a table: name it with the setting erased, such as "
                "--suite-set erased=concepts.csv"
            )
        for kind in sorted({one.kind for one in self.concepts()}):
            if len(self.texts(kind)) < 2:
                raise BadConcept(f"Suite 'mass' tells concepts apart, and there is one {kind} only: add others")
        super().prepare()

    def concepts(self, kind: Kind | None = None) -> Sequence[efface.SuiteConcept]:
        told = [efface.SuiteConcept(one.text, one.kind, one.synonyms) for one in (*self._erased, *self._stays)]
        return [one for one in told if kind in (None, one.kind)]

    def measured(self, erased: Sequence[str]) -> Sequence[str]:
        return self._sampled(erased)

    def templates(self, kind: Kind) -> Sequence[str]:
        return PROMPTS[kind]

    def rivals(self, kind: Kind) -> Sequence[str]:
        return RIVALS[kind]

    @cached_property
    def _erased(self) -> Sequence[Concept]:
        return efface.read_concepts(self.erased) if self.erased else ()

    @cached_property
    def _stays(self) -> Sequence[Concept]:
        """A sample of the table of what should stay, less what the other table erases."""
        gone = {same(phrase) for one in self._erased for phrase in one.phrases}
        there = {one.text: one for one in (efface.read_concepts(self.kept) if self.kept else ())}
        return [there[text] for text in self._sampled([text for text in there if same(text) not in gone])]

    def _sampled(self, texts: Sequence[str]) -> list[str]:
        """So many of them, in their order; all if there are no more."""
        chosen = set(random.Random(self.seed).sample(sorted(texts), min(self.sample, len(texts))))
        return [text for text in texts if text in chosen]
