"""AdaVD: the concept's direction is taken out of the values of cross-attention, token by token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

import efface
from efface_adavd.decomposition import Decomposition, Shift
from efface_adavd.words import Words

KIND = "cross_attn.v"


@dataclass(frozen=True)
class AdaVD:
    """Adaptive Value Decomposer (Wang et al., CVPR 2025): a projection in value space whose strength adapts.

    With `--preset paper` and one concept of one phrase this is the paper's edit. The default differs in three ways,
    all ours: values are taken relative to the empty prompt's, each token of a prompt meets the one of the erased
    tokens that it is most similar to, and the shift is softer. A fit is one pass of the text encoder.
    """

    name: ClassVar[str] = "adavd"
    cost_hint: ClassVar[float] = 1.0
    covers: ClassVar[efface.Covers] = efface.Covers(
        families=("sd1", "sd2", "sdxl"), kinds=(KIND,), bypassed_by=("image prompts",)
    )
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "paper": {
            "tokens": "subject",
            "relative": False,
            "towards": "nothing",
            "slope": 100.0,
            "middle": 0.93,
            "most": 2.0,
        },
    }

    tokens: Literal["tail", "subject"] = efface.setting(
        "tail", help="what stands for a phrase: its last token and all that follow, or its last token alone"
    )
    relative: bool = efface.setting(True, help="take values relative to those of the empty prompt")
    towards: Literal["nothing", "anchor"] = efface.setting(
        "anchor", help="what takes the place of what is taken out: nothing, or as much of the anchor"
    )
    slope: float = efface.setting(30.0, min=0, help="how sharply the shift rises with the similarity")
    middle: float = efface.setting(0.75, min=-1, max=1, help="similarity at which half of the shift is reached")
    most: float = efface.setting(1.0, min=0, help="the shift of a token that is the concept's own; 1 is a projection")

    def fit(self, model: efface.Model, request: efface.Request, run: efface.Run) -> efface.Fit:
        words = Words.of(model, request, tokens=self.tokens, relative=self.relative, anchored=self.towards == "anchor")
        kept = model.encode(request.keep).hidden.float() if request.keep else None
        tensors: dict[str, Tensor] = {}
        moved: list[Tensor] = []
        points = model.points(KIND)
        for number, point in enumerate(points):
            run.progress(number, len(points), "values")
            weight = model.weight(point).float()
            values = words.values(weight)
            tensors |= {f"{point.name}.{part}": value for part, value in values.items()}
            if kept is not None:
                moved.append(Decomposition(**values, shift=self.shift).moved(kept @ weight.T))
        run.progress(len(points), len(points), "values")
        return efface.Fit(tensors, report={"kept prompts move": told(request.keep, moved)} if moved else {})

    def apply(self, patch: efface.Patch, fits: Sequence[efface.Fitted]) -> None:
        for fitted in fits:
            parts: dict[str, dict[str, Tensor]] = {}
            for name, value in fitted.fit.tensors.items():
                point, _, part = name.rpartition(".")
                parts.setdefault(point, {})[part] = value
            for point, values in parts.items():
                patch.output(point, Decomposition(**values, shift=self.shift))

    @property
    def shift(self) -> Shift:
        return Shift(self.slope, self.middle, self.most)


def told(prompts: Sequence[str], moved: Sequence[Tensor]) -> dict[str, float]:
    """For each prompt how far its values move, the mean over layers."""
    means = torch.stack(list(moved)).mean(0).tolist()
    return {prompt: float(f"{mean:.3g}") for prompt, mean in zip(prompts, means, strict=True)}
