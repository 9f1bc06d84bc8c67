"""Ten artists, by their names and by works of theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import efface
from efface.concept import Kind
from efface_judges.zero_shot import ZeroShot


def _artist(text: str, synonyms: str, held_out: str, neighbours: str) -> efface.SuiteConcept:
    return efface.SuiteConcept(
        text,
        kind="style",
        synonyms=tuple(synonyms.split(", ")),
        held_out=tuple(held_out.split(", ")),
        neighbours=tuple(neighbours.split(", ")),
    )


ARTISTS = (
    _artist("Vincent van Gogh", "Van Gogh", "the painter of The Starry Night", "Claude Monet, Edvard Munch"),
    _artist("Claude Monet", "Monet", "the painter of Water Lilies", "Vincent van Gogh"),
    _artist("Pablo Picasso", "Picasso", "the painter of Guernica", "Salvador Dali"),
    _artist("Rembrandt", "Rembrandt van Rijn", "the painter of The Night Watch", "Johannes Vermeer"),
    _artist("Salvador Dali", "Dali", "the painter of The Persistence of Memory", "Pablo Picasso"),
    _artist("Katsushika Hokusai", "Hokusai", "the printmaker of The Great Wave off Kanagawa", "Gustav Klimt"),
    _artist("Edvard Munch", "Munch", "the painter of The Scream", "Vincent van Gogh"),
    _artist("Andy Warhol", "Warhol", "the artist of Campbell's Soup Cans", "Pablo Picasso"),
    _artist("Gustav Klimt", "Klimt", "the painter of The Kiss", "Katsushika Hokusai"),
    _artist("Johannes Vermeer", "Vermeer", "the painter of Girl with a Pearl Earring", "Rembrandt"),
)

TEMPLATES = (
    "a painting in the style of {}",
    "a landscape in the style of {}",
    "a portrait in the style of {}",
    "a still life in the style of {}",
    "a street scene in the style of {}",
)


@dataclass(frozen=True)
class Artists(ZeroShot):
    """Whose style a picture has: the artist whose caption is nearest, unless one without an artist is nearer."""

    name = "artists"
    summary = "ten artists' styles by CLIP's zero-shot classification; needs the setting clip"

    @property
    def example(self) -> efface.Request:
        kept = tuple(one.text for one in ARTISTS if one.text != "Vincent van Gogh")
        concept = efface.Concept("Vincent van Gogh", anchor="an unknown artist", synonyms=("Van Gogh",), kind="style")
        return efface.Request((concept,), keep=kept)

    @property
    def stack(self) -> Sequence[efface.Concept]:
        return tuple(efface.Concept(one.text, "an unknown artist", one.synonyms, "style") for one in ARTISTS)

    def concepts(self, kind: Kind | None = None) -> Sequence[efface.SuiteConcept]:
        return ARTISTS if kind in (None, "style") else ()

    def templates(self, kind: Kind) -> Sequence[str]:
        return TEMPLATES

    def rivals(self, kind: Kind) -> Sequence[str]:
        return ("a painting", "a drawing", "a photo")
