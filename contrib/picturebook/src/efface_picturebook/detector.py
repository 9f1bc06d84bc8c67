"""The network that says what is in a picture: which objects, where, which character, which style."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pixel_shuffle, relu

from efface_picturebook import world

THINGS = tuple(one.name for one in world.THINGS)
SEEN = (*THINGS, *(who.name for who in world.CHARACTERS))
STYLES = (world.PLAIN, *world.STYLES)
FINE, MIDDLE, WIDE = 24, 48, 96
REGION = 32  # side of the region maps


@dataclass(frozen=True)
class Sight:
    """What the detector sees in n pictures.

    `presence` (n, 14) and `style` (n, 5) are logits, `region` (n, 12, 32, 32) too, `features` (n, 96).
    """

    presence: Tensor
    style: Tensor
    region: Tensor
    features: Tensor


class Detector(nn.Module):
    """0.5 M parameters; `offset` moves each presence so that a score of one half is the operating point."""

    offset: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(*_convolution(3, FINE, size=5, stride=2))
        self.middle = nn.Sequential(*_convolution(FINE, MIDDLE, stride=2), Residual(MIDDLE))
        self.wide = nn.Sequential(*_convolution(MIDDLE, WIDE, stride=2), Residual(WIDE), Residual(WIDE))
        self.evidence = _reluctant(nn.Conv2d(WIDE, len(SEEN), 1), -6.0)
        self.style = nn.Linear(FINE + MIDDLE + WIDE, len(STYLES))
        self.lateral = nn.Conv2d(MIDDLE, 64, 1)
        self.top = nn.Conv2d(WIDE, 64, 1)
        self.shape = nn.Sequential(*_convolution(64, 64), _reluctant(nn.Conv2d(64, 4 * len(THINGS), 1), -3.0))
        self.register_buffer("offset", torch.zeros(len(SEEN)))

    def forward(self, pictures: Tensor) -> Sight:
        """Look at pictures (n, 3, 64, 64) from -1 to 1."""
        fine = self.fine(pictures)
        middle = self.middle(fine)
        wide = self.wide(middle)
        pooled = [level.mean((2, 3)) for level in (fine, middle, wide)]
        merged = relu(self.lateral(middle) + interpolate(self.top(wide), scale_factor=2.0))
        return Sight(
            presence=smooth_maximum(self.evidence(wide)) + self.offset,
            style=self.style(torch.cat(pooled, 1)),
            region=pixel_shuffle(self.shape(merged), 2),
            features=pooled[-1],
        )


class Residual(nn.Module):
    """Two convolutions beside an identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*_convolution(width, width), *_convolution(width, width)[:-1])

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = relu(x + self.body(x))
        return result


def smooth_maximum(evidence: Tensor) -> Tensor:
    """log sum exp over the places of a map (n, C, h, w): one place with evidence is enough."""
    return evidence.flatten(2).logsumexp(-1)


def _reluctant(layer: nn.Conv2d, bias: float) -> nn.Conv2d:
    """The layer, starting from what is mostly so: no object, hardly any region."""
    if layer.bias is not None:
        nn.init.constant_(layer.bias, bias)
    return layer


def _convolution(inside: int, outside: int, size: int = 3, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inside, outside, size, stride, padding=size // 2, bias=False)
    return [convolution, nn.BatchNorm2d(outside), nn.ReLU()]
