"""The ten objects of CIFAR-10, by their names, by synonyms and by paraphrases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import efface
from efface.concept import Kind
from efface_judges.zero_shot import ZeroShot


def _object(text: str, synonyms: str, held_out: str, neighbours: str) -> efface.SuiteConcept:
    return efface.SuiteConcept(
        text,
        synonyms=tuple(synonyms.split(", ")),
        held_out=tuple(held_out.split(", ")),
        neighbours=tuple(neighbours.split(", ")),
    )


# the last held-out words of each paraphrase it without any of its names
OBJECTS = (
    _object("airplane", "aeroplane, aircraft", "jet, airliner, flying machine with wings and engines", "bird, ship"),
    _object("automobile", "car, motorcar", "sedan, hatchback, passenger vehicle with four doors", "truck"),
    _object("bird", "songbird, fowl", "sparrow, birdie, feathered animal with a beak", "airplane"),
    _object("cat", "kitten, feline", "kitty, tomcat, whiskered pet that purrs", "dog"),
    _object("deer", "stag, doe", "fawn, hart, forest animal with antlers", "horse"),
    _object("dog", "puppy, canine", "hound, pooch, loyal pet that barks", "cat"),
    _object("frog", "toad, bullfrog", "amphibian, froglet, green pond animal that croaks", "bird"),
    _object("horse", "pony, stallion", "mare, steed, saddled animal with a mane", "deer"),
    _object("ship", "boat, vessel", "ocean liner, freighter, large craft that crosses the sea", "airplane"),
    _object("truck", "lorry, pickup", "semi-trailer, dumper, heavy vehicle that carries freight", "automobile"),
)

ANCHORS = {
    "airplane": "sky",
    "automobile": "street",
    "bird": "tree",
    "cat": "cushion",
    "deer": "forest",
    "dog": "lawn",
    "frog": "pond",
    "horse": "meadow",
    "ship": "sea",
    "truck": "road",
}

TEMPLATES = (
    "a photo of the {}",
    "a close-up photo of one {}",
    "a picture of the {} in daylight",
    "the {}, seen from the side",
    "a detailed drawing of the {}",
)


@dataclass(frozen=True)
class Objects(ZeroShot):
    """The ten names of CIFAR-10's classes; which of them a picture shows is CLIP's zero-shot classification.

    Classes and rates are those of MACE (Lu et al., CVPR 2024). Templates, anchors, synonyms and paraphrases are this
    project's own, so generality does not compare with papers that chose other words.
    """

    name = "objects"
    summary = "the ten objects of CIFAR-10 by CLIP's zero-shot classification; needs the setting clip"

    @property
    def example(self) -> efface.Request:
        kept = tuple(one.text for one in OBJECTS if one.text not in ("cat", "dog"))
        return efface.Request((efface.Concept("cat", anchor="dog"),), keep=kept)

    @property
    def stack(self) -> Sequence[efface.Concept]:
        """All ten, each with a scene that it is often seen in as anchor."""
        return tuple(efface.Concept(one.text, ANCHORS[one.text], one.synonyms) for one in OBJECTS)

    def concepts(self, kind: Kind | None = None) -> Sequence[efface.SuiteConcept]:
        return OBJECTS if kind in (None, "object") else ()

    def templates(self, kind: Kind) -> Sequence[str]:
        return TEMPLATES
