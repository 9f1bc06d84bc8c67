"""A plugin to meet: its one method edits the text, a weight and a tensor, so that any other method meets it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from efface.concept import Request
from efface.hookspecs import hookimpl
from efface.method import Fit, Fitted, Method, Run
from efface.model import Model
from efface_hooks import Call, Dense, LowRank, Patch

SIZE = 0.1


@dataclass(frozen=True)
class Shift:
    """x + by, for an edit of any tensor."""

    by: Tensor

    def __call__(self, x: Tensor, call: Call) -> Tensor:
        return x + self.by.to(x)


@dataclass(frozen=True)
class Partner:
    """Small random changes: a map of the text, an add at a value projection, a shift of the mid tensor."""

    name: ClassVar[str] = "efface-testing-partner"

    def fit(self, model: Model, request: Request, run: Run) -> Fit:
        (text,), (mid,), value = model.points("text"), model.points("mid"), model.points("cross_attn.v")[-1]
        generator = run.generator(stream="partner")
        shapes = {
            "up": (text.in_features or 0, 2),
            "down": (2, text.in_features or 0),
            "value": (value.out_features or 0, value.in_features or 0),
            "mid": (mid.in_features or 0, 1, 1),
        }
        tensors = {name: SIZE * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
        return Fit(tensors, {"value": value.name})

    def apply(self, patch: Patch, fits: Sequence[Fitted]) -> None:
        for fitted in fits:
            tensors = fitted.fit.tensors
            patch.map("unet.text", LowRank(tensors["up"], tensors["down"]))
            patch.add(fitted.fit.facts["value"], Dense(tensors["value"]))
            patch.output("unet.mid", Shift(tensors["mid"]))


class PartnerPlugin:
    """The plugin that brings it."""

    @hookimpl
    def efface_methods(self) -> list[type[Method]]:
        return [Partner]
