"""ErasePro: every module along the text path is made to treat the concept as its anchor, from shallow to deep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

import efface
from efface_erasepro import mass
from efface_erasepro.batch import Batch, Choice, batch
from efface_erasepro.chain import Chain, chain
from efface_erasepro.demand import Demand, Terms
from efface_erasepro.gate import Gate
from efface_erasepro.merging import merged
from efface_erasepro.outcome import Delta, Outcome, aligned, closed, left_over
from efface_erasepro.prior import Draw, prior
from efface_erasepro.reading import embedded
from efface_erasepro.templates import templates
from efface_erasepro.walk import walking

POOLED = "text_encoder_2.text_projection"
CLOSING = "closing"


@dataclass(frozen=True)
class ErasePro:
    """Zero-residual concept erasure via progressive alignment (Chen et al., 2025, arXiv 2508.04472).

    Known of the paper through secondary sources: per layer the weight closest to the base one that treats target
    features exactly as the base treats the anchor's, layer after layer from shallow to deep. Reconstruction, since
    neither the method section nor code is public: which layers, prompts and tokens; invariants, kept prompts, damping,
    the closing step and the budget are ours. `docs/methods/erasepro.md` says which is which.
    """

    name: ClassVar[str] = "erasepro"
    cost_hint: ClassVar[float] = 5.0
    covers: ClassVar[efface.Covers] = efface.Covers(
        families=("sd1", "sd2", "sdxl"),
        kinds=("text_encoder.v", "text_encoder.fc2", "weight", "text"),
        bypassed_by=("image prompts", "precomputed embeddings", "another clip-skip than the fit's"),
    )
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "parity": {
            "chain": ("text_encoder*.v_proj", "text_encoder*.fc2"),
            "damping": 0.0,
            "thin": 0.0,
            "keep_weight": 0.0,
            "invariants": 1,
            "templates": 8,
            "columns": "tokens",
            "prior": 0,
            "pooled": False,
        },
        "robust": {},
    }

    chain: tuple[str, ...] = efface.setting(
        ("text_encoder*.v_proj", "text_encoder*.fc2", "unet.text"),
        help="patterns of the points to edit: modules of text encoders, then unet.text or keys and values",
    )
    positions: Literal["tail", "span", "subject"] = efface.setting(
        "tail", help="tokens that stand for a phrase: its own and all that follow, its own, or its last one"
    )
    columns: Literal["averages", "tokens"] = efface.setting(
        "averages", help="what is aligned: the average of each kind of token over the templates, or every token"
    )
    singly: float = efface.setting(
        1.0, min=0, help="weight of each token at the closing step beside the average it belongs to"
    )
    templates: int = efface.setting(16, min=1, help="prompts per phrase: the request's templates, then built-in ones")
    pads: int = efface.setting(77, min=0, help="padding tokens of a prompt, at most, that stand for all of its padding")
    invariants: int = efface.setting(5, min=0, help="tokens of the empty prompt that stay exactly, its start first")
    hold: tuple[str, ...] = efface.setting((), help="prompts whose tokens stay exactly")
    keep_weight: float = efface.setting(1.0, min=0, help="weight of each token of what is kept: prompts and anchors")
    prior: int = efface.setting(100, min=0, help="prompts of random words that are kept too")
    prior_weight: float = efface.setting(1.0, min=0, help="weight of each of their tokens, as a share of keep_weight")
    exclude: tuple[str, ...] = efface.setting((), help="words that no random prompt holds")
    near: float = efface.setting(
        0.7, min=-1, max=1, help="cosine from which a word is too near to the concept to be in a random prompt"
    )
    damping: float = efface.setting(3.0, min=0, help="softness in the text encoder, 0 for exact")
    ridge: float = efface.setting(0.1, min=1e-6, help="weight of staying close to the base in the text encoder")
    thin: float = efface.setting(
        0.03, min=0, max=0.5, help="relative error up to which maps of the text encoder are kept in fewer factors"
    )
    closing_ridge: float = efface.setting(1e-3, min=1e-9, help="the same at the closing step")
    budget: float | None = efface.setting(
        0.1, min=0, help="mean square change of what is kept that exactness may cost at the closing step, none for any"
    )
    conflicts: Literal["soften", "refuse"] = efface.setting(
        "soften", help="what becomes of closing targets that cannot all be met: some are met softly, or an error"
    )
    pooled: bool = efface.setting(True, help="also edit the pooled embedding where a pipeline has one")
    clip_skip: int | None = efface.setting(None, min=0, help="the clip_skip that pictures will be generated with")
    gated: bool = efface.setting(
        False, help="edit a prompt only where it names or resembles a target: for hundreds of concepts, no chain"
    )
    similarity: float = efface.setting(
        0.98, min=0, max=1.01, help="cosine from which a word resembles a target when gated, above 1 for never"
    )

    def fit(self, model: efface.Model, request: efface.Request, run: efface.Run) -> efface.Fit:
        if self.gated:
            search = mass.Search(self.similarity, self.clip_skip)
            return mass.fit(model, request, self.choice, self.terms, self.keep_weight, search, run)
        found = chain(model.points(), self.chain, self.clip_skip)
        random = self._random(model, request, run)
        prompts = batch(model, request, templates(request, self.templates), self.choice, random)
        modules = {point.name: _module(model, point) for point in found.modules}
        projection = _projection(model)
        if self.pooled and projection is not None:
            modules[POOLED] = projection
        kept: dict[str, Delta] = {}
        told: dict[str, Any] = {}

        def edit(name: str, x: Tensor) -> Delta:
            run.progress(len(kept), len(modules) + 1, name)
            outcome = self._outcome(model, prompts, name, x)
            told[name] = outcome.report
            delta = outcome.delta
            kept[name] = outcome.through(model.weight(name)) if name == POOLED else delta
            return delta

        with walking(modules, len(prompts.prompts), prompts.edited, edit):
            hidden = embedded(model, prompts.prompts, self.clip_skip, len(prompts.prompts)).hidden
        run.progress(len(modules), len(modules) + 1, "closing")
        demand = Demand.of(prompts, hidden, self.keep_weight)
        if found.closing:
            outcome = self._closed(demand, _readers(model, found), hidden.dtype)
            kept[CLOSING], told[CLOSING] = outcome.delta, outcome.report
        run.progress(len(modules) + 1, len(modules) + 1, "closing")
        return self._fit(found, prompts, demand, hidden, kept, told)

    def apply(self, patch: efface.Patch, fits: Sequence[efface.Fitted]) -> None:
        for fitted in fits:
            tensors, facts = fitted.fit.tensors, fitted.fit.facts
            if self.gated:
                patch.output("unet.text", Gate(tensors, facts["similarity"]))
                continue
            for name in facts["modules"]:
                patch.map(name, _delta(tensors, name))
            for name in facts["closing"]:
                patch.map(name, _delta(tensors, CLOSING))
            for name in facts["pooled"]:
                patch.add(name, _delta(tensors, name))

    @property
    def splits(self) -> bool:
        """Only gated: the chain edits one layer after another."""
        return self.gated

    def merge(self, fits: Sequence[efface.Fitted], request: efface.Request) -> efface.Fit:
        """The concepts in one file, where the gate keeps them apart; EffaceError where maps hold them all at once."""
        if not self.gated:
            raise efface.EffaceError(
                "ErasePro merges fits with gated=true only: these are maps, which hold all their concepts at once; fit "
                "the concepts in one request, or attach the files as they are"
            )
        return merged(fits, request)

    @property
    def choice(self) -> Choice:
        """Which tokens of a prompt count."""
        averaged = self.columns == "averages"
        return Choice(self.positions, self.pads, self.invariants, self.hold, averaged, self.prior_weight)

    @property
    def terms(self) -> Terms:
        """What the closing step may do."""
        return Terms.of(self.closing_ridge, self.budget, self.conflicts, self.singly)

    def _random(self, model: efface.Model, request: efface.Request, run: efface.Run) -> tuple[str, ...]:
        """Prompts of random words, the same ones for the same seed."""
        if not (self.prior and self.prior_weight and self.keep_weight):
            return ()
        generator = run.generator(stream="erasepro prior")
        return prior(model, request, Draw(self.prior, self.near, self.exclude), self.clip_skip, generator)

    def _outcome(self, model: efface.Model, prompts: Batch, name: str, x: Tensor) -> Outcome:
        """What one module needs, given the features x that reach it."""
        weight = model.weight(name)
        if name == POOLED:
            return self._closed(Demand.of(prompts.pooled, x, self.keep_weight), [weight], x.dtype)
        demand = Demand.of(prompts, x, self.keep_weight)
        return aligned(demand, demand.damped(self.ridge, self.damping), [weight], x.dtype, self.thin)

    def _closed(self, demand: Demand, weights: Sequence[Tensor], dtype: torch.dtype) -> Outcome:
        """The closing step, which leaves no residual where its readers are concerned."""
        return closed(demand, self.terms, weights, dtype)

    def _fit(
        self,
        found: Chain,
        prompts: Batch,
        demand: Demand,
        hidden: Tensor,
        kept: Mapping[str, Delta],
        told: Mapping[str, Any],
    ) -> efface.Fit:
        """The factors and closing columns to keep, and the report, from shallow to deep."""
        columns = {"targets": demand.erased.inputs, "anchors": demand.erased.inputs + demand.erased.change}
        return efface.Fit(
            tensors={name: tensor for where, delta in kept.items() for name, tensor in _tensors(where, delta).items()}
            | {name: tensor.float() for name, tensor in columns.items()},
            facts={
                "modules": [point.name for point in found.modules],
                "closing": [point.name for point in found.closing],
                "pooled": [POOLED] if POOLED in kept else [],
            },
            report={
                "modules": [{"point": name} | report for name, report in told.items()],
                "residual before closing": self._left(prompts, demand, hidden, None),
                "residual": self._left(prompts, demand, hidden, kept.get(CLOSING)),
                "unread": list(found.unread),
            },
        )

    def _left(self, prompts: Batch, demand: Demand, hidden: Tensor, delta: Delta | None) -> dict[str, float]:
        """For each prompt the share of the way to its anchor that is left at the conditioning."""
        base = prompts.base(prompts.targets).features(hidden)
        asked = prompts.anchors.features(hidden) - base
        nothing = efface.LowRank(torch.zeros(len(base), 0), torch.zeros(0, len(base)))
        left = left_over(delta or nothing, demand.tokens, asked, prompts.targets.rows)
        return dict(zip(prompts.prompts, left, strict=False))


def _delta(tensors: Mapping[str, Tensor], where: str) -> Delta:
    if f"{where}.map" in tensors:
        return efface.Dense(tensors[f"{where}.map"])
    return efface.LowRank(tensors[f"{where}.up"], tensors[f"{where}.down"])


def _tensors(where: str, delta: Delta) -> dict[str, Tensor]:
    if isinstance(delta, efface.Dense):
        return {f"{where}.map": delta.weight}
    return {f"{where}.up": delta.up, f"{where}.down": delta.down}


def _module(model: efface.Model, point: efface.HookPoint) -> nn.Module:
    """The module at a point, inside the wrapper of `torch.compile` where there is one."""
    component: Any = getattr(model.pipe, point.component)
    found: nn.Module = getattr(component, "_orig_mod", component).get_submodule(point.path)
    return found


def _projection(model: efface.Model) -> nn.Module | None:
    """The layer that makes the pooled embedding; None where the U-Net reads none."""
    encoder = getattr(model.pipe, "text_encoder_2", None)
    found: nn.Module | None = getattr(getattr(encoder, "_orig_mod", encoder), "text_projection", None)
    return found


def _readers(model: efface.Model, found: Chain) -> list[Tensor]:
    """Two weights that read the conditioning, the shallowest and the deepest: they stand for all."""
    readers = [point for point in found.closing if point.kind != "text"]
    readers = readers or model.points("cross_attn.k", "cross_attn.v")
    return [model.weight(readers[0]), model.weight(readers[-1])]
