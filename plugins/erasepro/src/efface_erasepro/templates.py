"""Prompts that carry a concept through the text encoder; ours, since the paper's are not public."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from efface.concept import Kind, Request

_THINGS = (
    "a {}",
    "{}",
    "a photo of a {}",
    "a picture of a {}",
    "{} in a photo",
    "the {}",
    "a painting of a {}",
    "an image of {}",
    "a drawing of a {}",
    "a photo of {}",
    "a red {}",
    "a {} on a white background",
    "a {} and another one",
    "a small {}",
    "many {}",
    "a {} in a painting",
)
_NAMES = (
    "{}",
    "a photo of {}",
    "a picture of {}",
    "{} in a photo",
    "a painting of {}",
    "an image of {}",
    "a drawing of {}",
    "a portrait of {}",
    "{} on a white background",
    "{} in a painting",
    "{} and another one",
    "a close view of {}",
    "a sketch of {}",
    "a poster of {}",
    "{} at night",
    "{} from the side",
)
_STYLES = (
    "{}",
    "a picture in {} style",
    "a painting in the style of {}",
    "a {} picture",
    "art by {}",
    "{} style",
    "a drawing in {} style",
    "a portrait in the style of {}",
    "a {} painting",
    "an image by {}",
    "a landscape in {} style",
    "a painting by {}",
    "a {} drawing",
    "a photo in the style of {}",
    "a still life by {}",
    "a city in {} style",
)
BUILT_IN: Mapping[Kind, Sequence[str]] = MappingProxyType(
    {"object": _THINGS, "style": _STYLES, "person": _NAMES, "explicit": _NAMES}
)


def templates(request: Request, least: int) -> tuple[str, ...]:
    """The request's templates, and built-in ones of its concepts' kinds until there are `least`, or no more.

    Reconstruction: the paper does not say which prompts it aligns.
    """
    kinds = dict.fromkeys(concept.kind for concept in request.concepts)
    own = dict.fromkeys(request.templates)
    ours = [one for turn in zip(*(BUILT_IN[kind] for kind in kinds), strict=True) for one in turn]
    more = [one for one in dict.fromkeys(ours) if one not in own]
    return (*own, *more[: max(0, least - len(own))])
