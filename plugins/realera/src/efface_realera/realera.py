"""RealEra: a concept is erased together with its neighbours, and what lies beyond them is held in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import efface
from efface_realera.aligning import aligned
from efface_realera.bounds import Bounds
from efface_realera.editing import frozen
from efface_realera.mapping import mapped
from efface_realera.mining import Mined, mine
from efface_realera.prompts import Prompts


@dataclass(frozen=True)
class RealEra:
    """RealEra (Liu et al., arXiv 2410.09140): a closed form on the text, then LoRA on cross-attention keys and values.

    Known of the paper are the two stages in this order, neighbours and beyond-concept points in both, their
    definition by distance and cosine, and the anchor as the goal. Its equations and constants are not public; the
    sampler's constants come from a third party's port, all else is reconstruction.
    """

    name: ClassVar[str] = "realera"
    cost_hint: ClassVar[float] = 120.0
    covers: ClassVar[efface.Covers] = efface.Covers(
        families=("sd1", "sd2", "sdxl"),
        kinds=("text", "cross_attn.k", "cross_attn.v"),
        bypassed_by=("image prompts", "SDXL's pooled text embedding"),
    )
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "parity": {
            "sampler": "isotropic",
            "tokens": "all",
            "noise": 1.0,
            "bank_weight": 0.0,
            "hard_targets": False,
            "invariants": "none",
            "steps": 500,
            "step_keep": 0,
            "denoising_steps": 50,
        },
        "robust": {"sampler": "snap", "hard_targets": True, "invariants": "empty"},
        "closed-form": {"steps": 0},
    }

    sampler: Literal["snap", "covariance", "isotropic"] = efface.setting(
        "snap", help="neighbours: real phrases (snap), or embeddings with noise like real phrases (covariance) or white"
    )
    moments: Literal["sampled", "analytic"] = efface.setting(
        "sampled", help="draw isotropic neighbours for the closed form, or use the moments of infinitely many"
    )
    near: int = efface.setting(64, min=0, help="neighbours of each concept in the closed form, at most")
    beyond: int = efface.setting(38, min=0, help="beyond-concept points of each concept in the closed form, at most")
    s_hi: float | None = efface.setting(None, min=-1, max=1, help="largest cosine of a neighbour; none: the sampler's")
    s_lo: float | None = efface.setting(None, min=-1, max=1, help="least cosine of a neighbour; none: the sampler's")
    s_beyond: float | None = efface.setting(
        None, min=-1, max=1, help="cosine below which beyond-concept points lie; none: the sampler's"
    )
    s_floor: float | None = efface.setting(
        None, min=-1, max=1, help="least cosine of a beyond-concept point; none: the sampler's"
    )
    distance: float | None = efface.setting(
        None, min=1e-3, help="largest distance of noisy points, in norms of the embedding; none: the sampler's"
    )
    noise: float | None = efface.setting(
        None, min=1e-6, help="standard deviation of isotropic noise; none: the embedding's root mean square"
    )
    tokens: Literal["tail", "subject", "all"] = efface.setting(
        "tail", help="what stands for a phrase: its last token and all after it, it alone, all"
    )
    bank: tuple[str, ...] = efface.setting((), help="phrases among which to mine; none: the tokenizer's whole words")
    bank_size: int = efface.setting(1000, min=1, help="how many phrases of the bank to use, the first ones")
    shortlist: int = efface.setting(
        200, min=1, help="how many phrases, most like the concept as text, are compared by what the model predicts"
    )
    exclude: tuple[str, ...] = efface.setting((), help="phrases never mined nor held, such as ones kept for measuring")
    near_weight: float = efface.setting(
        1.0, min=0, help="weight of a concept's neighbours together, the concept's is 1"
    )
    beyond_weight: float = efface.setting(4.0, min=0, help="weight of a concept's beyond-concept points together")
    keep_weight: float = efface.setting(1.0, min=0, help="weight of the kept prompts together")
    bank_weight: float = efface.setting(1.0, min=0, help="weight of the bank's other phrases together")
    ridge: float = efface.setting(0.001, min=1e-9, help="lamb, in shares of the mean energy of a feature")
    hard_targets: bool = efface.setting(True, help="erased phrases become their anchors exactly, neighbours nearly")
    hard_share: float = efface.setting(
        0.3, min=0, max=1, help="which directions hard_targets means: singular values of this share of the largest"
    )
    invariants: Literal["none", "start", "empty", "whole"] = efface.setting(
        "empty", help="tokens of the empty prompt that never move: none, its start, a few of them, or the whole of it"
    )
    least_gain: float = efface.setting(
        0.9, min=0, max=1, help="refuse noisy neighbours that would shrink unrelated features below this"
    )
    steps: int = efface.setting(200, min=0, help="training steps of stage 2; 0 leaves it out")
    rate: float = efface.setting(1e-3, min=1e-9, help="learning rate")
    rank: int = efface.setting(4, min=1, help="rank of the LoRA")
    step_near: int = efface.setting(5, min=0, help="neighbours in each step, at most")
    step_beyond: int = efface.setting(3, min=0, help="beyond-concept points in each step, at most")
    step_keep: int = efface.setting(2, min=0, help="kept prompts in each step, at most")
    beyond_loss: float = efface.setting(1.0, min=0, help="weight of what stays in the loss")
    trajectories: int = efface.setting(16, min=1, help="denoising trajectories in the latent bank")
    times: int = efface.setting(8, min=1, help="timesteps kept of each trajectory")
    refreshes: int = efface.setting(1, min=0, help="how often the latent bank is made anew during training")
    denoising_steps: int = efface.setting(20, min=1, help="steps of a trajectory")
    guidance: float = efface.setting(3.0, min=1, help="guidance of a trajectory")
    batch_size: int = efface.setting(16, min=1, help="conditions in one pass of the U-Net, at most")

    def __post_init__(self) -> None:
        self.bounds  # noqa: B018 - raises where the cosines are out of order
        if self.moments == "analytic" and self.sampler != "isotropic":
            raise ValueError(f"moments=analytic is for sampler=isotropic, not {self.sampler}")

    @property
    def bounds(self) -> Bounds:
        """The sampler's bounds with the ones that were set."""
        return Bounds.of(
            self.sampler,
            highest=self.s_hi,
            lowest=self.s_lo,
            below=self.s_beyond,
            floor=self.s_floor,
            distance=self.distance,
        )

    def fit(self, model: efface.Model, request: efface.Request, run: efface.Run) -> efface.Fit:
        with frozen(model):
            return self._fit(model, request, run)

    def _fit(self, model: efface.Model, request: efface.Request, run: efface.Run) -> efface.Fit:
        prompts = Prompts.of(model, request)
        keep = model.encode_phrases(request.keep, ["{}"]) if request.keep else None
        mined = mine(self, model, request, prompts, run)
        first = mapped(self, model, prompts, keep, mined, run)
        adapted, losses = aligned(self, model, prompts, keep, mined, first, run) if self.steps else ({}, [])
        delta = first.delta
        factors = {"up": delta.up, "down": delta.down} if isinstance(delta, efface.LowRank) else {"map": delta.weight}
        lora = {f"{name}.{part}": getattr(each, part) for name, each in adapted.items() for part in ("up", "down")}
        return efface.Fit(
            tensors={name: tensor.float() for name, tensor in (factors | lora).items()},
            facts={"adapted": list(adapted)},
            report=first.report | _mined(request, mined) | _loss(losses),
        )

    def apply(self, patch: efface.Patch, fits: Sequence[efface.Fitted]) -> None:
        for fitted in fits:
            tensors = fitted.fit.tensors
            delta = efface.Dense(tensors["map"]) if "map" in tensors else efface.LowRank(tensors["up"], tensors["down"])
            patch.map("unet.text", delta)
            for name in fitted.fit.facts["adapted"]:
                patch.add(name, efface.LowRank(tensors[f"{name}.up"], tensors[f"{name}.down"]))


def _mined(request: efface.Request, mined: Mined) -> dict[str, object]:
    """Which phrases were mined for each concept, with their cosines to it."""
    named = list(zip(request.concepts, mined.ranks, strict=False))
    if not named:
        return {}
    return {
        "neighbours": {concept.text: [list(entry) for entry in rank.near] for concept, rank in named},
        "beyond": {concept.text: [list(entry) for entry in rank.beyond] for concept, rank in named},
    }


def _loss(losses: Sequence[float]) -> dict[str, object]:
    """The mean loss of the first and of the last tenth of the steps."""
    tenth = max(1, len(losses) // 10)
    ends = {"first": losses[:tenth], "last": losses[-tenth:]}
    return {"loss": {name: sum(part) / tenth for name, part in ends.items()}} if losses else {}
