"""The rows of a sheet: pictures without erasures and with them, and where gates opened on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import efface
from efface.method import Progress
from efface.report.progress import named
from efface.report.sampling import Sampling
from efface_gloce.maps import GateRecorder, listening
from efface_gloce.sheet import Row

if TYPE_CHECKING:
    from PIL.Image import Image

Attached = Callable[[efface.Registry], AbstractContextManager[object]]


def rows(
    pipe: Any, sampling: Sampling, base: Sequence[Image], attached: Attached, progress: Progress
) -> tuple[Row, ...]:
    """Every picture without the erasures, which is in `base`, and with them, in the order of `batches`, and its maps.

    `attached(registry)` puts the erasures on, by methods of that registry, and takes them off again.
    """
    recorders: list[GateRecorder] = []
    found: list[Row] = []
    with attached(listening(lambda layer, gate, call: recorders[-1](layer, gate, call))):
        for batch in batches(sampling):
            recorders.append(GateRecorder(len(batch.seeds)))
            after, maps = batch.pictures(pipe, named("after", progress)), recorders[-1].maps()
            each = zip(batch.seeds, base[len(found) :], after, maps, strict=False)
            found += [Row(batch.prompts[0].text, seed, plain, edited, tuple(own)) for seed, plain, edited, own in each]
    return tuple(found)


def batches(sampling: Sampling) -> Iterator[Sampling]:
    """The pictures that are made at once: of one prompt."""
    for prompt in sampling.prompts:
        for first in range(0, len(sampling.seeds), sampling.batch_size):
            yield replace(sampling, prompts=(prompt,), seeds=sampling.seeds[first : first + sampling.batch_size])
