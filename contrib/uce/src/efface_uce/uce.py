"""UCE: one ridge regression that moves concepts onto anchors and holds other prompts in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch

import efface
from efface.solver import Columns, Problem, condensed, solve
from efface_uce.gathered import Gathered
from efface_uce.gathering import gather


@dataclass(frozen=True)
class UCE:
    """Unified Concept Editing, eq. 7 of the paper, for all cross-attention keys and values at once.

    The regression has the same solution W (I + E) for every layer that reads the text, so the edit is one map at
    `unet.text`. Two versions of the published code differ in the tokens that stand for a phrase; both are here.
    """

    name: ClassVar[str] = "uce"
    cost_hint: ClassVar[float] = 1.0
    splits: ClassVar[bool] = True
    covers: ClassVar[efface.Covers] = efface.Covers(
        families=("sd1", "sd2", "sdxl"), kinds=("text",), bypassed_by=("image prompts",)
    )
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {"parity": {"tokens": "subject"}}

    lamb: float = efface.setting(0.5, min=1e-6, help="weight of staying close to the base everywhere")
    erase_scale: float = efface.setting(1.0, min=0, help="weight of each erased embedding")
    preserve_scale: float = efface.setting(1.0, min=0, help="weight of each kept embedding")
    tokens: Literal["tail", "subject"] = efface.setting(
        "tail", help="what stands for a phrase: its last token and all that follow, or its last token alone"
    )

    def fit(self, model: efface.Model, request: efface.Request, run: efface.Run) -> efface.Fit:
        gathered = gather(model, request, self.tokens, run)
        run.progress(0, 1, "solving")
        fit = self._solved(gathered)
        run.progress(1, 1, "solving")
        return fit

    def compose(self, fits: Sequence[efface.Fitted], request: efface.Request) -> efface.Fit:
        """One regression over the columns of all the fits: what eq. 7 gives for all concepts at once."""
        gathered = Gathered.joined(fits, request)
        fit = self._solved(gathered)
        stacked, joint = [_delta(fitted.fit) for fitted in fits], [_delta(fit)]
        return replace(fit, report=fit.report | gathered.composition(request, stacked, joint))

    def apply(self, patch: efface.Patch, fits: Sequence[efface.Fitted]) -> None:
        for fitted in fits:
            patch.map("unet.text", _delta(fitted.fit))

    def problem(self, gathered: Gathered) -> Problem:
        """min_E sum_i s |E c_i - (a_i - c_i)|^2 + p sum_j |E k_j|^2 + lamb |E|^2, columns (d, n): eq. 7.

        Derived: of more than 2 d columns, d that have the same solution are enough.
        """
        d, count = gathered.targets.shape
        wishes = gathered.columns(self.erase_scale)
        soft = condensed(wishes) if count > 2 * d else Columns.joined(list(wishes))
        return Problem(lamb=self.lamb, soft=soft, keep=gathered.keep, keep_weight=self.preserve_scale)

    def _solved(self, gathered: Gathered) -> efface.Fit:
        """The map with the columns it was solved from, in float32 or the model's precision if that is wider."""
        delta = solve(self.problem(gathered)).delta
        factors = {"up": delta.up, "down": delta.down} if isinstance(delta, efface.LowRank) else {"map": delta.weight}
        wide = torch.promote_types(gathered.targets.dtype, torch.float32)
        return efface.Fit(
            tensors={name: tensor.to(wide) for name, tensor in (factors | gathered.tensors()).items()},
            facts={"columns": list(gathered.counts)},
            report={"residual": gathered.residual([delta])},
        )


def _delta(fit: efface.Fit) -> efface.LowRank | efface.Dense:
    tensors = fit.tensors
    return efface.Dense(tensors["map"]) if "map" in tensors else efface.LowRank(tensors["up"], tensors["down"])
