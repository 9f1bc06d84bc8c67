"""The edit of one layer: each token is changed by the one concept whose gate is widest open there, or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

import efface
from efface_gloce.gate import Gates
from efface_gloce.layer import Layer
from efface_gloce.placed import Placed

TieBreak = Literal["logit", "first"]

CHUNK = 4096


@dataclass(frozen=True)
class Terms:
    """How one concept is applied: `eta` multiplies what it maps to, and it acts from timestep `first` down to `last`.

    `everywhere` says whether it also acts in rows that carry no prompt, which guidance adds. `scale` mixes the change
    in: 1 as fitted, 0 not at all. `concept` is its name, for people.
    """

    eta: float
    first: float
    last: float
    everywhere: bool = True
    scale: float = 1.0
    concept: str = ""


@dataclass(frozen=True)
class Gate:
    """The winning concept of each token: how far its gate is open (B, T), which one it is (B, T), and p - c (B, T).

    `active` (B,) says whether any concept acts at the timestep of a row.
    """

    open: Tensor
    winner: Tensor
    margin: Tensor
    active: Tensor


Listener = Callable[["GatedLayer", Gate, efface.Call], None]


class GatedLayer:
    """x + s (f(x) - x) with f(x) = eta (mu_map + V_map U^T (x - mu_tar)), all of the token's winner.

    The gate is s = sigmoid(k (p - c)), in float32 or wider whatever the model's dtype. A gate below that dtype's
    rounding error is closed, and a token with a closed gate passes through as it is.
    """

    def __init__(
        self,
        name: str,
        layer: Layer,
        terms: Sequence[Terms],
        tie_break: TieBreak = "logit",
        listener: Listener | None = None,
    ) -> None:
        self.name = name
        self.concepts = tuple(one.concept for one in terms)
        self.tie_break = tie_break
        self.listener = listener
        self.everywhere = all(one.everywhere for one in terms)
        self.lowest_threshold = float(layer.threshold.min())
        self.gates = Gates(layer.gate_basis, layer.centre)
        self._tensors = _prepared(layer, terms)

    def __call__(self, x: Tensor, call: efface.Call) -> Tensor:
        with _full_precision(x):
            return self._edited(x, call)

    def gate(self, x: Tensor, call: efface.Call) -> Gate:
        """The gate of each token of x (B, T, D), float32 or wider."""
        own, active = self._tensors.beside(x), self.active(x, call)
        margins = self.gates(x) - own["threshold"]
        logits = margins * own["slope"] + torch.log(active.to(x.dtype))[:, None]
        winner = (logits if self.tie_break == "logit" else logits.sigmoid()).argmax(-1)
        chosen = winner.unsqueeze(-1)
        opened = logits.gather(-1, chosen).squeeze(-1).sigmoid()
        opened = torch.where(opened < torch.finfo(x.dtype).eps, 0, opened)
        return Gate(opened, winner, margins.gather(-1, chosen).squeeze(-1), active.any(-1))

    def active(self, x: Tensor, call: efface.Call) -> Tensor:
        """Which concepts act in which rows, (B, N) bool: in all rows where it is not known which carry a prompt."""
        own, now = self._tensors.beside(x), call.timestep.to(x.device)[:, None]
        inside = (now <= own["first"]) & (now >= own["last"])
        prompted = None if self.everywhere else call.conditional
        return inside if prompted is None else inside & (prompted.to(x.device)[:, None] | (own["everywhere"] > 0))

    def mapped(self, x: Tensor, concept: Tensor) -> Tensor:
        """f(x) for tokens (n, D) and the concept of each, (n,)."""
        own = self._tensors.beside(x)
        coordinates = (own["update"][concept] @ x.unsqueeze(-1)).squeeze(-1) - own["offset"][concept]
        return own["mean"][concept] + (coordinates.unsqueeze(1) @ own["basis"][concept]).squeeze(1)

    def _edited(self, x: Tensor, call: efface.Call) -> Tensor:
        tokens = x.to(torch.promote_types(x.dtype, torch.float32))
        if _is_free_to_look(x) and self.listener is None and not self.active(tokens, call).any():
            return x
        gate = self.gate(tokens, call)
        if self.listener is not None:
            self.listener(self, gate, call)
        weight = (gate.open * self._tensors.beside(tokens)["scale"][gate.winner]).flatten()
        rows = weight.nonzero().squeeze(-1) if _is_free_to_look(x) else torch.arange(len(weight), device=x.device)
        if not len(rows):
            return x
        flat, winner, result = tokens.flatten(0, 1), gate.winner.flatten(), x.flatten(0, 1).clone()
        for some in torch.split(rows, CHUNK):
            part, share = flat[some], weight[some].unsqueeze(-1)
            changed = torch.lerp(part, self.mapped(part, winner[some]), share).to(x.dtype)
            result[some] = torch.where(share == 0, result[some], changed)
        return result.view_as(x)


def _prepared(layer: Layer, terms: Sequence[Terms]) -> Placed:
    """A layer's tensors as the edit uses them, with eta and the target's mean multiplied in beforehand."""

    def column(name: str) -> Tensor:
        return torch.tensor([getattr(one, name) for one in terms], dtype=torch.float64)

    eta, basis, mean = column("eta"), layer.map_basis.mT, layer.map_mean
    return Placed(
        {
            "threshold": layer.threshold,
            "slope": layer.slope,
            "scale": column("scale"),
            "first": column("first"),
            "last": column("last"),
            "everywhere": column("everywhere"),
            "update": layer.update.mT.contiguous(),
            "offset": torch.einsum("nd,ndr->nr", layer.target_mean.double(), layer.update.double()),
            "basis": (eta[:, None, None] * basis.double()).to(basis.dtype).contiguous(),
            "mean": (eta[:, None] * mean.double()).to(mean.dtype),
        }
    )


def _is_free_to_look(x: Tensor) -> bool:
    """Whether asking for a value makes nobody wait; it would on an accelerator, so there every token is computed."""
    return x.device.type == "cpu"


def _full_precision(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Autocast off: it would run the gate in half precision."""
    if torch.is_autocast_enabled(x.device.type):
        return torch.autocast(x.device.type, enabled=False)
    return contextlib.nullcontext()
