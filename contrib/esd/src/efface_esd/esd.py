"""ESD: weights trained to predict, for the concept, what guidance away from it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

import efface
from efface_esd.training import Training

UP, DOWN = ".up", ".down"


@dataclass(frozen=True)
class ESD:
    """Erased Stable Diffusion (Gandikota et al., ICCV 2023), eq. 6 of the paper.

    The trained change of every layer is kept apart from the weights, as an `add` at the layer. Biases and norms, which
    the published code trains along with some choices of layers, stay as they are.
    """

    name: ClassVar[str] = "esd"
    cost_hint: ClassVar[float] = 45.0
    covers: ClassVar[efface.Covers] = efface.Covers(
        families=("sd1", "sd2", "sdxl"),
        kinds=("cross_attn.*", "self_attn.*", "weight"),
        bypassed_by=("image prompts",),
    )
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "paper": {"steps": 1000, "rate": 1e-5, "batch": 1, "sampling": 50, "trajectories": 1, "renew": 1},
        "paper-u": {
            "layers": "u",
            "steps": 1000,
            "rate": 1e-5,
            "batch": 1,
            "sampling": 50,
            "trajectories": 1,
            "renew": 1,
        },
    }

    layers: Literal["x", "x-strict", "u", "full"] = efface.setting(
        "x",
        help="what is trained: cross-attention (x), its keys and values alone (x-strict), all but cross-attention (u), "
        "or every linear layer and convolution (full)",
    )
    towards: Literal["nothing", "anchor"] = efface.setting(
        "nothing", help="what guidance away from the concept starts at: the empty prompt, or the anchor"
    )
    negative: float = efface.setting(1.0, min=0, help="strength of the guidance away from the concept")
    steps: int = efface.setting(100, min=1, help="steps of the training")
    rate: float = efface.setting(6e-4, min=0, help="learning rate of Adam")
    batch: int = efface.setting(4, min=1, help="rows of one step")
    trajectories: int = efface.setting(8, min=1, help="ways from noise to picture that rows are drawn from")
    renew: int = efface.setting(50, min=1, help="steps after which the edited model walks new trajectories")
    sampling: int = efface.setting(15, min=1, help="denoising steps of a trajectory")
    guidance: float = efface.setting(3.0, min=1, help="classifier-free guidance of a trajectory")
    rank: int | None = efface.setting(None, min=1, help="directions of each layer's change that are kept; none for all")
    checkpoint: int = efface.setting(100, min=1, help="least number of steps between two checkpoints")

    def fit(self, model: efface.Model, request: efface.Request, run: efface.Run) -> efface.Fit:
        training = Training.of(self, model, request, run)
        losses = training.run_through()
        tensors: dict[str, Tensor] = {}
        for name, change in training.changes.items():
            tensors |= kept(name, change.detach().flatten(1), self.rank)
        report: dict[str, Any] = {"loss": losses, "layers": len(training.changes)}
        if request.keep:
            report["not used"] = ["keep"]
        return efface.Fit(tensors, report=report)

    def apply(self, patch: efface.Patch, fits: Sequence[efface.Fitted]) -> None:
        for fitted in fits:
            tensors = fitted.fit.tensors
            for name, tensor in tensors.items():
                if name.endswith(UP):
                    place = name.removesuffix(UP)
                    patch.add(place, efface.LowRank(tensor, tensors[place + DOWN]))
                elif not name.endswith(DOWN):
                    patch.add(name, efface.Dense(tensor))


def kept(name: str, change: Tensor, rank: int | None) -> dict[str, Tensor]:
    """A layer's change (m, d) as it is saved: whole, or the nearest of that rank where two factors are smaller."""
    rows, columns = change.shape
    if rank is None or rank * (rows + columns) >= rows * columns:
        return {name: change}
    left, sizes, right = torch.linalg.svd(change, full_matrices=False)
    return {name + UP: left[:, :rank] * sizes[:rank], name + DOWN: right[:rank].contiguous()}
