"""Ways around an erasure that the places of its edits tell of."""

from __future__ import annotations

from collections.abc import Collection

from efface_hooks.point import TEXT_ENCODERS

TEXT = "unet.text"
CROSS_ATTENTION = ".attn2."


def unedited_encoders(points: Collection[str], encoders: Collection[str]) -> list[str]:
    """The text encoders of a model that read prompts around edits at these points, which are in another one of them."""
    edited = _edited(points)
    if TEXT in points or not edited & set(encoders):
        return []
    return [name for name in encoders if name not in edited]


def pooled_goes_around(points: Collection[str], encoders: Collection[str]) -> bool:
    """Whether the second text encoder's pooled embedding goes into the U-Net past all these points.

    It is added to the timestep's embedding, so it does not come by the text, cross-attention or the first encoder.
    """
    second = TEXT_ENCODERS[1]
    if second not in encoders or second in _edited(points) or unedited_encoders(points, encoders):
        return False
    return bool(points) and all(_reads_text(name) for name in points)


def _edited(points: Collection[str]) -> set[str]:
    return {name.partition(".")[0] for name in points} & set(TEXT_ENCODERS)


def _reads_text(point: str) -> bool:
    return point == TEXT or CROSS_ATTENTION in point or point.partition(".")[0] in TEXT_ENCODERS
