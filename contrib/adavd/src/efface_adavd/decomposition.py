"""What happens to the values of a layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

import efface

LEAST = 1e-12


@dataclass(frozen=True)
class Shift:
    """How much of a token's share of the concept goes: most / (1 + exp(-slope (similarity - middle)))."""

    slope: float
    middle: float
    most: float

    def __call__(self, similarity: Tensor) -> Tensor:
        return self.most * torch.sigmoid(self.slope * (similarity - self.middle))


class Decomposition:
    """v - shift(cos) k (r - a), for the token r of the concept that v is most similar to; k = <v, r> / |r|^2.

    With a = 0 and shift 1 that is v's orthogonal complement to r. `concept` and `instead` (n, m) hold r and a, none for
    a = 0; `centre` (T, m) is what v, r and a are relative to: the values of the empty prompt, or zeros. The first
    token, which starts all texts alike, is left alone, as in the published code.
    """

    def __init__(self, *, concept: Tensor, centre: Tensor, shift: Shift, instead: Tensor | None = None) -> None:
        self.concept = concept
        self.instead = instead
        self.centre = centre
        self.shift = shift

    def __call__(self, values: Tensor, call: efface.Call) -> Tensor:
        self.move(values.device)
        wide = values.float()
        return (wide - self.taken(wide)).to(values.dtype)

    def taken(self, values: Tensor) -> Tensor:
        """What is taken out of values (B, T, m)."""
        own = self.centred(values)
        place = (normalize(own, dim=-1) @ normalize(self.concept, dim=-1).T).argmax(-1)
        near = self.concept[place]
        share = (own * near).sum(-1) / near.square().sum(-1).clamp_min(LEAST)
        amount = self.shift(cosine_similarity(own, near, dim=-1)) * share * later(own)
        return amount[..., None] * (near if self.instead is None else near - self.instead[place])

    def moved(self, values: Tensor) -> Tensor:
        """How far each text is moved, as a share of the size of its values, (B,), values (B, T, m)."""
        taken, whole = (part.flatten(1).norm(dim=1) for part in (self.taken(values), values))
        share: Tensor = taken / whole.clamp_min(LEAST)
        return share

    def centred(self, values: Tensor) -> Tensor:
        """Values less the centre; a text that is longer than one prompt is made of parts that begin like one."""
        length = values.shape[1]
        return values - self.centre.repeat(-(-length // len(self.centre)), 1)[:length]

    def move(self, device: torch.device) -> None:
        """Copies the data once, so that no later pass waits for the device."""
        self.concept, self.centre = self.concept.to(device), self.centre.to(device)
        self.instead = None if self.instead is None else self.instead.to(device)


def later(values: Tensor) -> Tensor:
    """0 at the first token and 1 at all others, (T,)."""
    return (torch.arange(values.shape[1], device=values.device) > 0).to(values)
