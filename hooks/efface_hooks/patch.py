"""What one method puts on one pipeline."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from efface_hooks.call import Call
from efface_hooks.delta import Delta, Dense, LowRank
from efface_hooks.errors import BadEdit
from efface_hooks.point import HookPoint, points, weight_point

TensorEdit = Callable[[Tensor, Call], Tensor]
StepCallback = Callable[[Call], None]
Verb = Literal["map", "add", "input", "output", "step"]

TAKES: dict[str, tuple[Verb, ...]] = {
    "step": ("step",),
    "text": ("map", "output"),
    "skip": ("output",),
    "mid": ("output",),
    "weight": ("add",),
}
PROJECTION_TAKES: tuple[Verb, ...] = ("map", "add", "input", "output")


@dataclass(frozen=True)
class Edit:
    """One verb at one point: what `Wiring` turns into hooks. `what` is a Delta or a callable, by verb."""

    point: HookPoint
    verb: Verb
    what: Any
    scale: float


class Patch:
    """The edits of one method on one pipeline, in the order they were asked for.

    Verbs check point, shape and finiteness and record; nothing is on the model until a `Wiring` installs the patch.
    `scale` s >= 0 multiplies every map and add, and mixes every tensor edit as x + s (edit(x) - x).
    """

    def __init__(self, pipe: Any, extra: Iterable[HookPoint] = (), scale: float = 1.0) -> None:
        self._pipe = pipe
        self._points = {point.name: point for point in points(pipe, extra=extra)}
        self.scale = checked_scale(scale)
        self.edits: list[Edit] = []

    @property
    def pipe(self) -> Any:
        """The pipeline, for an edit that is made from the base weights; it is read, never changed."""
        return self._pipe

    @property
    def points(self) -> list[HookPoint]:
        """Every listed point of the pipeline in forward order."""
        return list(self._points.values())

    def map(self, point: str | HookPoint, delta: Delta) -> None:
        """The layer sees x + E x in place of x, E (d, d): at a projection, or once for all readers at `unet.text`."""
        place = self._place(point, "map")
        self._check_delta(place, delta, place.in_features)
        self._record(place, "map", delta)

    def add(self, point: str | HookPoint, delta: Delta) -> None:
        """The layer's output gains Delta x, Delta (m, d); for a convolution d = channels x kernel height x width."""
        place = self._place(point, "add")
        self._check_delta(place, delta, place.out_features)
        self._record(place, "add", delta)

    def input(self, point: str | HookPoint, edit: TensorEdit) -> None:
        """The layer sees edit(x, call), after the maps at this point."""
        self._record(self._place(point, "input"), "input", edit)

    def output(self, point: str | HookPoint, edit: TensorEdit) -> None:
        """What follows sees edit(y, call) of the layer's output, skip, mid tensor or text, same shape and dtype."""
        self._record(self._place(point, "output"), "output", edit)

    def step(self, callback: StepCallback) -> None:
        """callback(call) once per denoising call of the U-Net, before anything else runs."""
        self._record(self._place("unet.step", "step"), "step", callback)

    def _place(self, point: str | HookPoint, verb: Verb) -> HookPoint:
        name = point if isinstance(point, str) else point.name
        place = self._points[name] if name in self._points else weight_point(self._pipe, name, self._points)
        takes = TAKES.get(place.kind, PROJECTION_TAKES)
        if verb not in takes:
            raise BadEdit(f"{name} (kind {place.kind}) takes {', '.join(takes)}, not {verb}")
        return place

    def _record(self, point: HookPoint, verb: Verb, what: Any) -> None:
        if verb not in ("map", "add") and not callable(what):
            raise BadEdit(f"{verb} at {point.name} takes a callable, not {type(what).__name__}")
        self.edits.append(Edit(point, verb, what, self.scale))

    @staticmethod
    def _check_delta(point: HookPoint, delta: Delta, rows: int | None) -> None:
        if not isinstance(delta, LowRank | Dense):
            raise BadEdit(f"{point.name} takes a LowRank or Dense, not {type(delta).__name__}")
        if delta.shape != (rows, point.in_features):
            raise BadEdit(f"{point.name} takes a change of shape {(rows, point.in_features)}, not {delta.shape}")
        factors = (delta.up, delta.down) if isinstance(delta, LowRank) else (delta.weight,)
        if not all(bool(torch.isfinite(factor).all()) for factor in factors):
            raise BadEdit(f"The change at {point.name} has entries that are not finite")


def checked_scale(scale: float) -> float:
    """A scale as a finite float >= 0, else BadEdit."""
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not math.isfinite(scale) or scale < 0:
        raise BadEdit(f"A scale is a finite number >= 0, not {scale!r}")
    return float(scale)
