"""GLoCE: a gated low-rank change of what cross-attention adds to the picture, only where the concept is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import efface
from efface.fingerprint import fingerprint
from efface_gloce.archive import Archive, digest
from efface_gloce.artifact import merged, packed, terms_of, unpacked
from efface_gloce.collector import Collector, negative
from efface_gloce.fitting import Fitting, Half, Ranks
from efface_gloce.gated import GatedLayer, Listener, Terms, TieBreak
from efface_gloce.layer import Layer, stacked
from efface_gloce.presets import PRESETS
from efface_gloce.sampling import Sampling, Window
from efface_gloce.words import Choice, Words, words_of

if TYPE_CHECKING:
    from efface.report.illustration import Illustration, Showing

KIND = "cross_attn.out"
UNCLEAR = "bases that are not well defined"


@dataclass(frozen=True, eq=False)
class GLoCE:
    """Gated low-rank adaptation for concept erasure (Lee, Lim and Chun, CVPR 2025), fitted without training.

    It acts on the output of every cross-attention layer, token by token. Two GLoCE methods are equal, whatever their
    settings, if their erasures go into one stack: what differs between these is with each concept's tensors.
    """

    name: ClassVar[str] = "gloce"
    stacks: ClassVar[bool] = True
    splits: ClassVar[bool] = True
    cost_hint: ClassVar[float] = 30.0
    covers: ClassVar[efface.Covers] = efface.Covers(families=("sd1", "sd2", "sdxl"), kinds=(KIND,))
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = PRESETS

    map_rank: int = efface.setting(2, min=1, help="directions of what the concept becomes that are kept")
    target_rank: int = efface.setting(16, min=1, help="directions of the concept that are taken out")
    gate_rank: int = efface.setting(1, min=1, help="directions of the concept by which the gate knows it")
    tau: float = efface.setting(2.5, min=1e-3, help="standard deviations from the boundary to the threshold")
    eta: float = efface.setting(1.0, min=0, help="factor of what the concept becomes")
    active_from: int = efface.setting(950, min=0, help="timestep from which it acts on the way down")
    active_until: int = efface.setting(0, min=0, help="last timestep at which it acts")
    collect_from: int = efface.setting(775, min=0, help="first timestep whose features the fit collects")
    collect_until: int = efface.setting(591, min=0, help="last timestep whose features the fit collects")
    steps: int = efface.setting(20, min=1, help="denoising steps of the fit's trajectories, were they to go on to 0")
    guidance: float = efface.setting(7.5, min=0, help="classifier-free guidance of the fit's trajectories")
    scheduler: Literal["pipeline", "lms"] = efface.setting(
        "pipeline", help="scheduler of the fit: the pipeline's own, or LMS"
    )
    seeds: int = efface.setting(3, min=1, help="trajectories for each prompt")
    kept_seeds: int = efface.setting(1, min=1, help="trajectories for each prompt to keep, at most as many as seeds")
    height: int | None = efface.setting(None, min=1, help="height of the fit's pictures in pixels")
    width: int | None = efface.setting(None, min=1, help="width of the fit's pictures in pixels")
    batch: int = efface.setting(8, min=1, help="trajectories at once")
    template: str = efface.setting("", help="prompt with {} for words, unless the request has templates; by kind")
    mapping: tuple[str, ...] = efface.setting((), help="words that a concept without an anchor becomes")
    boundary: tuple[str, ...] = efface.setting((), help="words next to the concept that set the threshold; chosen")
    centre: str = efface.setting("", help="words for nothing special, about which the gate measures; neutral prompt")
    pool: tuple[str, ...] = efface.setting((), help="words to choose from, or objects, persons, artists, styles")
    boundaries: int = efface.setting(3, min=0, help="how many boundary words to choose, less the prompts to keep")
    mappings: int = efface.setting(0, min=0, help="how many mapping words are chosen: the least similar")
    erased: tuple[str, ...] = efface.setting((), help="names that other erasures are for: never boundary or mapping")
    rows: Literal["prompt", "all"] = efface.setting(
        "prompt", help="where guided calls are changed: in the rows with the prompt, or in all"
    )
    tie_break: Literal["logit", "first"] = efface.setting(
        "logit", help="which of two saturated gates wins: the higher, or the first"
    )

    def __post_init__(self) -> None:
        for what in ("active", "collect"):
            first, last = getattr(self, f"{what}_from"), getattr(self, f"{what}_until")
            if first < last:
                raise ValueError(f"{what}_from ({first}) must not be below {what}_until ({last}): timesteps count down")
        if self.template and self.template.count("{}") != 1:
            raise ValueError(f"template {self.template!r} must hold {{}} exactly once, where the words go")

    def fit(self, model: efface.Model, request: efface.Request, run: efface.Run) -> efface.Fit:
        self.sampling.check(model.pipe)
        words = words_of(model, request, self._choice)
        collector = self._collector(model, run)
        fitting = Fitting(collector, Ranks(self.map_rank, self.target_rank, self.gate_rank), self.tau, self.kept_seeds)
        halves = fitting.halves(words)
        layers = fitting.layers(words, halves)
        tensors, facts = packed(layers, [self.terms] * len(words))
        texts = [concept.text for concept in request.concepts]
        return efface.Fit(tensors, facts, _report(texts, words, layers, halves, self._calls(model, words)))

    def apply(self, patch: efface.Patch, fits: Sequence[efface.Fitted]) -> None:
        attach(patch, fits, self.tie_break)

    def merge(self, fits: Sequence[efface.Fitted], request: efface.Request) -> efface.Fit:
        """The concepts in one file: it acts as the stack of their files does, to the last bit."""
        layers, terms = merged(fits, request)
        tensors, facts = packed(layers, terms)
        return efface.Fit(tensors, facts, _merged_report(fits, request, layers))

    def step_flops(self, fitted: efface.Fitted, positions: Mapping[str, int]) -> float:
        """The gates of all concepts at every token, and the edit of its winner as if every gate were open."""
        layers = unpacked(fitted.fit)
        return sum(layer.flops * positions[point.partition(".")[2]] for point, layer in layers.items())

    def illustrate(self, erasure: efface.Erasure, showing: Showing) -> Sequence[Illustration]:
        """The gate maps of every prompt's first picture."""
        from efface_gloce.illustrating import illustrated

        return illustrated(erasure, showing)

    @property
    def terms(self) -> Terms:
        """How a concept is applied that is fitted with these settings."""
        return Terms(self.eta, self.active_from, self.active_until, everywhere=self.rows == "all")

    @property
    def sampling(self) -> Sampling:
        window = Window(self.collect_from, self.collect_until)
        return Sampling(window, self.steps, self.guidance, self.scheduler, self.height, self.width)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GLoCE) and self.tie_break == other.tie_break

    def __hash__(self) -> int:
        return hash((GLoCE, self.tie_break))

    @property
    def _choice(self) -> Choice:
        return Choice(
            template=self.template,
            mapping=self.mapping,
            boundary=self.boundary,
            centre=self.centre,
            pool=self.pool,
            boundaries=self.boundaries,
            mappings=self.mappings,
            erased=self.erased,
        )

    def _collector(self, model: efface.Model, run: efface.Run) -> Collector:
        places = model.points(KIND)
        seeds = [(run.seed + number) % 2**64 for number in range(self.seeds)]
        archive = Archive(run.folder, {} if run.folder is None else self._circumstances(model, places))
        return Collector(model, places, self.sampling, seeds, self.batch, run, archive)

    def _calls(self, model: efface.Model, words: Sequence[Words]) -> dict[str, int]:
        """How many calls for one picture each set of prompts takes, also if a folder has them; each prompt once."""
        each, seen = self.sampling.calls(model.pipe), set[str]()
        calls = {}
        for group in ("target", "mapping", "centre"):
            prompts = {prompt for own in words for prompt in getattr(own, group)} - seen
            seen |= prompts
            calls[group] = len(prompts) * self.seeds * each
        near, kept = ({prompt for own in words for prompt in getattr(own, group)} for group in ("boundary", "kept"))
        calls["boundary"] = len(near) * self.seeds * each
        calls["kept"] = len(kept) * min(self.kept_seeds, self.seeds) * each
        return calls

    def _circumstances(self, model: efface.Model, places: Sequence[efface.HookPoint]) -> dict[str, Any]:
        """All that the statistics of a prompt depend on, but for the prompt itself and its seeds."""
        scheduler = self.sampling.schedule(model.pipe)
        empty = negative(model, 1)
        return {
            "base": fingerprint(model.pipe, places),
            "device": model.device.type,
            "points": [place.name for place in places],
            "sampling": repr(self.sampling),
            "scheduler": [type(scheduler).__name__, dict(scheduler.config)],
            "negative": digest(empty.hidden, empty.pooled),
        }


def attach(
    patch: efface.Patch,
    fits: Sequence[efface.Fitted],
    tie_break: TieBreak = "logit",
    listener: Listener | None = None,
) -> None:
    """Put the concepts of all fits on each point as one stack; `listener(layer, gate, call)` hears their gates."""
    terms = [own for fitted in fits for own in terms_of(fitted)]
    each = [unpacked(fitted.fit) for fitted in fits]
    points = {point for layers in each for point in layers}
    if any(set(layers) != points for layers in each):
        raise efface.EffaceError("These GLoCE erasures touch different layers: they are for different models")
    layers = {point: stacked(own[point] for own in each) for point in each[0]}
    order = list(range(len(terms))) if tie_break == "first" else _order(layers, terms)
    for point, layer in layers.items():
        edit = GatedLayer(point, layer.at(order), [terms[row] for row in order], tie_break, listener)
        patch.output(point, edit)


def _order(layers: Mapping[str, Layer], terms: Sequence[Terms]) -> list[int]:
    """The concepts by their content: rounding depends on the order, what is drawn must not."""
    named = [layers[point] for point in sorted(layers)]  # their order is another one in a file than in a fit
    thresholds, means = [layer.threshold for layer in named], [layer.target_mean for layer in named]

    def key(row: int) -> tuple[str, str]:
        own = b"".join(tensor[row].double().cpu().numpy().tobytes() for tensor in (*thresholds, *means))
        return hashlib.sha256(own).hexdigest(), repr(terms[row])

    return sorted(range(len(terms)), key=key)


def _report(
    texts: Sequence[str],
    words: Sequence[Words],
    layers: Mapping[str, Layer],
    halves: Sequence[Mapping[str, Half]],
    calls: Mapping[str, int],
) -> dict[str, Any]:
    """The words, the range of the thresholds over the layers, what it takes, and bases that are not well defined."""
    report: dict[str, Any] = {
        "words": {text: own.to_json() for text, own in zip(texts, words, strict=True)},
        "thresholds": _ranges(texts, layers),
        "U-Net calls": dict(calls),
    }
    unclear = {
        f"{text}: {point}": list(half.unclear)
        for text, own in zip(texts, halves, strict=True)
        for point, half in own.items()
        if half.unclear
    }
    return report | ({UNCLEAR: unclear} if unclear else {})


def _merged_report(
    fits: Sequence[efface.Fitted], request: efface.Request, layers: Mapping[str, Layer]
) -> dict[str, Any]:
    """The reports of fits about the concepts of a request, but for the calls that each fit took for all of its own."""
    texts = {concept.text: None for concept in request.concepts}
    told = [fitted.fit.report for fitted in fits]
    words = {text: own for report in told for text, own in report.get("words", {}).items() if text in texts}
    pairs = [pair for report in told for pair in report.get(UNCLEAR, {}).items()]
    unclear = {name: bases for name, bases in pairs if name.rpartition(": ")[0] in texts}
    report: dict[str, Any] = {"words": words, "thresholds": _ranges(texts, layers)}
    return report | ({UNCLEAR: unclear} if unclear else {})


def _ranges(texts: Iterable[str], layers: Mapping[str, Layer]) -> dict[str, dict[str, float]]:
    return {text: _range(layers, row) for row, text in enumerate(texts)}


def _range(layers: Mapping[str, Layer], row: int) -> dict[str, float]:
    found = sorted(float(layer.threshold[row]) for layer in layers.values())
    return {"lowest": found[0], "median": found[len(found) // 2], "highest": found[-1]}
