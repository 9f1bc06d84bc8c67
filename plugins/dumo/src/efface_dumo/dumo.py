"""DuMo: what it can be told, how it is fitted and how it is put on a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

import efface

if TYPE_CHECKING:
    from efface.report.illustration import Illustration, Showing


@dataclass(frozen=True)
class DuMo:
    """Dual encoder modulation (Han et al., AAAI 2025): an eraser branch beside the encoder, weighed by time and layer.

    What the pictures come from is the paper's published code. Its training code was never published: the objective
    and every number of the training are a reconstruction after ESD, whose scripts the repository carries.
    """

    name: ClassVar[str] = "dumo"
    cost_hint: ClassVar[float] = 360.0
    covers: ClassVar[efface.Covers] = efface.Covers(
        families=("sd1", "sd2", "sdxl"), kinds=("skip", "mid"), bypassed_by=("image prompts",)
    )
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "gated": {"gate": "both"},
        "style": {"eta": 0.5},
        "explicit": {"table": "none", "gate": "off"},
        "esd": {
            "eta": 1.0,
            "steps": 1000,
            "batch": 1,
            "rate": 1e-5,
            "schedule": "constant",
            "retain_weight": 0.0,
            "table_retain_weight": 1.0,
            "sample_steps": 50,
            "trajectories": 12,
            "refresh_every": 50,
            "refresh": 1,
        },
        "trial": {
            "steps": 2,
            "batch": 2,
            "trajectories": 2,
            "sample_steps": 4,
            "table_steps": 2,
            "table_cache": 4,
        },
    }

    table: Literal["time_layer", "time", "layer", "linear", "blend", "none"] = efface.setting(
        "time_layer", help="what weighs the branch: a table, a line of the time embedding, a blend, or nothing"
    )
    bins: int = efface.setting(20, min=1, help="rows of the table: equal parts of the noise schedule")
    layer_groups: tuple[int, ...] = efface.setting(
        (), help="the column of each skip connection and, last, of the mid output; one for each if empty"
    )
    mid: bool = efface.setting(True, help="whether the mid output is modulated too")
    gate: Literal["off", "both", "similarity", "overlap"] = efface.setting(
        "off", help="how the prompt is compared with the erased names, if at all"
    )
    gate_factor: float = efface.setting(1.0, min=0, help="what the gate's score is multiplied by")
    gate_threshold: float = efface.setting(0.0, min=0, max=1, help="score below which the branch does not act")
    eta: float = efface.setting(0.0, min=0, help="how far beyond the anchor, away from the concept")
    guidance: float = efface.setting(3.0, min=1, help="guidance of the trajectories that are learnt from")
    sample_steps: int = efface.setting(20, min=1, help="steps of each such trajectory")
    trajectories: int = efface.setting(16, min=1, help="how many of them, of erased and of kept prompts each")
    refresh_every: int = efface.setting(50, min=0, help="steps until erased ones are made anew; 0 for never")
    refresh: int = efface.setting(4, min=1, help="how many are made anew each time, by the edited model")
    jitter: bool = efface.setting(True, help="whether timesteps are drawn from the interval around the step's own")
    crossed: float = efface.setting(
        0.75, min=0, max=1, help="share of retained rows with the empty prompt, or any kept one, on others' latents"
    )
    steps: int = efface.setting(400, min=0, help="steps of stage 1, which trains the branch")
    batch: int = efface.setting(4, min=1, help="erased rows in a step")
    retained: int = efface.setting(2, min=1, help="retained rows for each erased one")
    rate: float = efface.setting(1e-3, min=0, help="learning rate of stage 1")
    schedule: Literal["cosine", "constant"] = efface.setting("cosine", help="how learning rates go on")
    retain_weight: float = efface.setting(100.0, min=0, help="weight of kept prompts in stage 1, in the end")
    ramp: float = efface.setting(
        0.7, min=0, max=1, help="share of stage 1 over which that weight grows, from a hundredth of it"
    )
    freeze: tuple[str, ...] = efface.setting((), help="parts of the branch's encoder that are not trained")
    table_steps: int = efface.setting(60, min=0, help="steps of stage 2, which trains the table")
    table_rate: float = efface.setting(1e-2, min=0, help="learning rate of stage 2")
    table_retain_weight: float = efface.setting(100.0, min=0, help="weight of kept prompts in stage 2")
    table_cache: int = efface.setting(40, min=1, help="erased rows that stage 2 goes through again and again")
    table_pull: float = efface.setting(0.0, min=0, help="weight of the table's mean squared distance from one")
    table_positive: bool = efface.setting(False, help="whether the table is kept from going below zero")
    precision: Literal["no", "fp16", "bf16"] = efface.setting("no", help="mixed precision of the training")
    checkpoint_every: int = efface.setting(100, min=1, help="steps between checkpoints")
    store: Literal["float16", "float32", "low-rank"] = efface.setting(
        "low-rank", help="how the branch is kept: as thin differences from the base, or whole"
    )
    rank: int = efface.setting(32, min=1, help="rank of the differences")

    def fit(self, model: efface.Model, request: efface.Request, run: efface.Run) -> efface.Fit:
        from efface_dumo.fitting import fitted

        return fitted(self, model, request, run)

    def apply(self, patch: efface.Patch, fits: Sequence[efface.Fitted]) -> None:
        from efface_dumo.attaching import sides

        layers = [point for point in patch.points if point.kind == "skip" or (point.kind == "mid" and self.mid)]
        for fitted in fits:
            for side in sides(self, patch, fitted):
                for layer, point in enumerate(layers):
                    patch.output(point, partial(side.edited, layer=layer))

    def illustrate(self, erasure: efface.Erasure, showing: Showing) -> Sequence[Illustration]:
        """The losses of the training and the learned table, for each concept."""
        from efface_dumo.figures import illustrated

        return illustrated(erasure.header.report)

    def step_flops(self, fitted: efface.Fitted, positions: Mapping[str, int]) -> float:
        """A pass of every concept's branch, as if no gate were closed and no row of a table zero."""
        from efface_dumo.branch import Branch
        from efface_dumo.operations import branch_flops

        branch = Branch(fitted.fit.facts["unet"], self.table != "blend")
        return len(fitted.fit.facts["concepts"]) * branch_flops(branch, positions)
