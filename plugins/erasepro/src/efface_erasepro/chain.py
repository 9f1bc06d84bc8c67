"""Which modules are edited, in the order in which they run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import efface

ENCODER = "text_encoder."
CLOSING = ("text", "cross_attn.k", "cross_attn.v")


@dataclass(frozen=True)
class Chain:
    """`modules` of the text encoders from shallow to deep, then `closing` points, which all read the conditioning.

    `unread` names matched modules of blocks whose output the U-Net does not read.
    """

    modules: tuple[efface.HookPoint, ...]
    closing: tuple[efface.HookPoint, ...]
    unread: tuple[str, ...]


def chain(points: Sequence[efface.HookPoint], selectors: Sequence[str], clip_skip: int | None) -> Chain:
    """The points that the selectors (shell patterns of point names) match, in forward order.

    BadSetting for a selector that matches nothing editable, and for `unet.text` together with its readers.
    """
    editable = [point for point in points if point.kind.startswith(ENCODER) or point.kind in CLOSING]
    for selector in selectors:
        if not any(fnmatchcase(point.name, selector) for point in editable):
            raise efface.BadSetting(_unmatched(selector, editable))
    chosen = [point for point in editable if any(fnmatchcase(point.name, selector) for selector in selectors)]
    closing = tuple(point for point in chosen if point.kind in CLOSING)
    if {point.kind for point in closing} > {"text"}:
        raise efface.BadSetting("The chain names unet.text and keys or values, which read it: name one or the other")
    modules = [point for point in chosen if point.kind not in CLOSING]
    read = {point.name for point in modules if point.depth <= _last_read(points, point.component, clip_skip)}
    return Chain(
        tuple(point for point in modules if point.name in read),
        closing,
        tuple(point.name for point in modules if point.name not in read),
    )


def _last_read(points: Sequence[efface.HookPoint], component: str, clip_skip: int | None) -> int:
    """The last block of a text encoder that reaches the conditioning.

    Pipelines with two text encoders read `hidden_states[-2]`, and clip-skip counts back from there.
    """
    blocks = [point.depth for point in points if point.component == component]
    two = len({point.component for point in points if point.kind.startswith(ENCODER)}) > 1
    return max(blocks) - (clip_skip or 0) - int(two)


def _unmatched(selector: str, editable: Sequence[efface.HookPoint]) -> str:
    kinds = dict.fromkeys(point.kind for point in editable)
    examples = [next(point.name for point in editable if point.kind == kind) for kind in kinds]
    return f"The chain's selector {selector!r} matches no editable point; there are, for example: {', '.join(examples)}"
