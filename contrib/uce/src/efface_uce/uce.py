"""UCE: one ridge regression that moves concepts onto anchors and holds other prompts in place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

import efface
from efface.solver import Columns, Problem, solve


@dataclass(frozen=True)
class UCE:
    """Unified Concept Editing, eq. 7 of the paper, for all cross-attention keys and values at once.

    The regression has the same solution W (I + E) for every layer that reads the text, so the edit is one map at
    `unet.text`. Each phrase is represented by its last token, as in the published code.
    """

    name: ClassVar[str] = "uce"
    cost_hint: ClassVar[float] = 1.0
    covers: ClassVar[efface.Covers] = efface.Covers(
        families=("sd1", "sd2", "sdxl"), kinds=("text",), bypassed_by=("image prompts",)
    )

    lamb: float = efface.setting(0.5, min=1e-6, help="weight of staying close to the base everywhere")
    erase_scale: float = efface.setting(1.0, min=0, help="weight of each erased phrase")
    preserve_scale: float = efface.setting(1.0, min=0, help="weight of each kept prompt")

    def fit(self, model: efface.Model, request: efface.Request, run: efface.Run) -> efface.Fit:
        run.progress(0, 2, "encoding prompts")
        targets, anchors, labels = phrase_pairs(model, request)
        kept = model.encode_phrases(request.keep, ["{}"]) if request.keep else None
        keep = None if kept is None else kept.at(kept.subject).T
        run.progress(1, 2, "solving")
        solution = solve(self.problem(targets, anchors, keep, labels))
        run.progress(2, 2, "solving")
        delta = solution.delta
        factors = {"up": delta.up, "down": delta.down} if isinstance(delta, efface.LowRank) else {"map": delta.weight}
        columns = {"targets": targets, "anchors": anchors} | ({} if keep is None else {"keep": keep})
        return efface.Fit(
            tensors={name: tensor.float() for name, tensor in (factors | columns).items()},
            facts={"labels": list(labels)},
            report={"residual": dict(zip(labels, solution.report.soft_residual, strict=True))},
        )

    def apply(self, patch: efface.Patch, fits: Sequence[efface.Fitted]) -> None:
        for fitted in fits:
            tensors = fitted.fit.tensors
            delta = efface.Dense(tensors["map"]) if "map" in tensors else efface.LowRank(tensors["up"], tensors["down"])
            patch.map("unet.text", delta)

    def problem(self, targets: Tensor, anchors: Tensor, keep: Tensor | None, labels: Sequence[str] = ()) -> Problem:
        """min_E sum_i s |E c_i - (a_i - c_i)|^2 + p sum_j |E k_j|^2 + lamb |E|^2, columns (d, n): eq. 7."""
        weights = torch.full((targets.shape[1],), self.erase_scale)
        wishes = Columns.pairs(targets, anchors, weights, tuple(labels))
        return Problem(lamb=self.lamb, soft=wishes, keep=keep, keep_weight=self.preserve_scale)


def phrase_pairs(model: efface.Model, request: efface.Request) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Embeddings of every erased phrase and of its anchor in every template, both (d, n), and a label for each."""
    phrases = [(phrase, concept.anchor or "") for concept in request.concepts for phrase in concept.phrases]
    targets = model.encode_phrases([phrase for phrase, _ in phrases], request.templates)
    anchors = model.encode_phrases([anchor for _, anchor in phrases], request.templates)
    return targets.at(targets.subject).T, anchors.at(anchors.subject).T, targets.prompts
