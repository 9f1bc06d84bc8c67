"""UCE: one ridge regression that moves concepts onto anchors and holds other prompts in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

import efface
from efface.alignment import Aligned, aligned, kept
from efface.solver import Columns, Problem, solve


@dataclass(frozen=True)
class UCE:
    """Unified Concept Editing, eq. 7 of the paper, for all cross-attention keys and values at once.

    The regression has the same solution W (I + E) for every layer that reads the text, so the edit is one map at
    `unet.text`. Two versions of the published code differ in the tokens that stand for a phrase; both are here.
    """

    name: ClassVar[str] = "uce"
    cost_hint: ClassVar[float] = 1.0
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
        run.progress(0, 2, "encoding prompts")
        prompts, pairs = self._pairs(model, request)
        keep = kept(model.encode_phrases(request.keep, ["{}"]), self.tokens) if request.keep else None
        run.progress(1, 2, "solving")
        solution = solve(self.problem(pairs.targets, pairs.anchors, keep))
        run.progress(2, 2, "solving")
        delta = solution.delta
        factors = {"up": delta.up, "down": delta.down} if isinstance(delta, efface.LowRank) else {"map": delta.weight}
        columns = {"targets": pairs.targets, "anchors": pairs.anchors} | ({} if keep is None else {"keep": keep})
        return efface.Fit(
            tensors={name: tensor.float() for name, tensor in (factors | columns).items()},
            report={"residual": dict(zip(prompts, _residuals(pairs, solution.report.soft_residual), strict=True))},
        )

    def apply(self, patch: efface.Patch, fits: Sequence[efface.Fitted]) -> None:
        for fitted in fits:
            tensors = fitted.fit.tensors
            delta = efface.Dense(tensors["map"]) if "map" in tensors else efface.LowRank(tensors["up"], tensors["down"])
            patch.map("unet.text", delta)

    def problem(self, targets: Tensor, anchors: Tensor, keep: Tensor | None) -> Problem:
        """min_E sum_i s |E c_i - (a_i - c_i)|^2 + p sum_j |E k_j|^2 + lamb |E|^2, columns (d, n): eq. 7."""
        wishes = Columns.pairs(targets, anchors, torch.full((targets.shape[1],), self.erase_scale))
        return Problem(lamb=self.lamb, soft=wishes, keep=keep, keep_weight=self.preserve_scale)

    def _pairs(self, model: efface.Model, request: efface.Request) -> tuple[tuple[str, ...], Aligned]:
        """Every erased phrase in every template, and its anchor in the same one."""
        phrases = [(phrase, concept.anchor or "") for concept in request.concepts for phrase in concept.phrases]
        targets = model.encode_phrases([phrase for phrase, _ in phrases], request.templates)
        anchors = model.encode_phrases([anchor for _, anchor in phrases], request.templates)
        return targets.prompts, aligned(targets, anchors, self.tokens)


def _residuals(pairs: Aligned, missed: Sequence[float]) -> list[float]:
    """For each prompt the share of the way to its anchor that is left, over all its columns together."""
    asked = (pairs.anchors - pairs.targets).double().norm(dim=0)
    left = torch.tensor(missed, dtype=torch.float64) * asked
    each = [pairs.prompts == index for index in range(int(pairs.prompts.max()) + 1)]
    return [float(left[mine].norm() / asked[mine].norm().clamp_min(1e-30)) for mine in each]
