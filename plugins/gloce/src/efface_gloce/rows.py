"""The rows of a sheet: pictures without erasures and with them, and where gates opened on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import efface
from efface.method import Progress
from efface.report.progress import named
from efface.report.sampling import Sampling
from efface_gloce.maps import GateRecorder, listening
from efface_gloce.sheet import Row

Attached = Callable[[efface.Registry], AbstractContextManager[object]]


def rows(pipe: Any, sampling: Sampling, attached: Attached, progress: Progress) -> tuple[Row, ...]:
    """Every picture without the erasures and with them, and its gate maps; one recorder hears one batch.

    `attached(registry)` puts the erasures on, by methods of that registry, and takes them off again.
    """
    base = [batch.pictures(pipe, named("before", progress)) for batch in _batches(sampling)]
    recorders: list[GateRecorder] = []
    found: list[Row] = []
    with attached(listening(lambda layer, gate, call: recorders[-1](layer, gate, call))):
        for batch, before in zip(_batches(sampling), base, strict=True):
            recorders.append(GateRecorder(len(batch.seeds)))
            after, maps = batch.pictures(pipe, named("after", progress)), recorders[-1].maps()
            each = zip(batch.seeds, before, after, maps, strict=True)
            found += [Row(batch.prompts[0].text, seed, plain, edited, tuple(own)) for seed, plain, edited, own in each]
    return tuple(found)


def _batches(sampling: Sampling) -> Iterator[Sampling]:
    """The pictures that are made at once: of one prompt."""
    for prompt in sampling.prompts:
        for first in range(0, len(sampling.seeds), sampling.batch_size):
            yield replace(sampling, prompts=(prompt,), seeds=sampling.seeds[first : first + sampling.batch_size])
