"""What GLoCE draws for a demonstration."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import efface
from efface.report.illustration import Illustration, Showing
from efface_gloce.rows import rows
from efface_gloce.sheet import Sheet

ABOUT = (
    "Where the gates of {} were open, block by block of the U-Net, as the mean over layers and the steps at which it "
    "acts. p - c is the largest that any token had: a gate opens where it is above 0."
)


def illustrated(erasure: efface.Erasure, showing: Showing) -> list[Illustration]:
    """One sheet with a row for every prompt, at the first seed."""
    sampling = replace(showing.sampling, seeds=showing.sampling.seeds[:1])
    base = showing.base[:: len(showing.sampling.seeds)]
    drawn = rows(showing.pipe, sampling, base, partial(_attached, showing.pipe, erasure), showing.progress)
    names = ", ".join(concept.text for concept in erasure.concepts)
    return [Illustration(ABOUT.format(names), Sheet(f"gates of {names}", drawn).drawn())]


def _attached(pipe: object, erasure: efface.Erasure, registry: efface.Registry) -> efface.Editor:
    return efface.Editor(pipe, erasure, registry=registry)
