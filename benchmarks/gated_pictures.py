"""What GLoCE does to pictures, as Markdown tables: which it leaves alone, and how several concepts get along.

First, of pictures of unrelated prompts, in how many no gate opened at any token, layer and step, and whether these are
the base's to the last bit. Then several concepts, one erasure for each: is each one as erased in the stack as it is
alone, and does what none of them names stay? The model's suite gives prompts, sampler settings and judgement.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

import efface
from efface.evaluation.draws import Draw, spread
from efface.evaluation.sampler import fast_sampler
from efface.evaluation.targets import Targets
from efface.generating import generate
from efface.report.example import Wish
from efface.suite import SHOWN
from efface_gloce.artifact import packed, unpacked
from efface_gloce.gated import Gate, GatedLayer, Terms
from efface_gloce.gloce import GLoCE
from efface_gloce.maps import listening

STEPS = 15
ALONE = ("cat:fish", "car:house", "skull:mushroom")
TWO = ("cat:fish", "car:house")
TEN = (
    "cat:mushroom",
    "dog:house",
    "fish:mushroom",
    "bird:house",
    "car:house",
    "boat:mushroom",
    "tree:house",
    "flower:house",
    "robot:mushroom",
    "skull:mushroom",
)


class Bench:
    """A model with its suite; `settings` are GLoCE's."""

    def __init__(self, model: str, seeds: int, settings: dict[str, str]) -> None:
        self.pipe = efface.load(model)
        self.registry = efface.Registry.installed()
        self.reader = efface.Model(self.pipe, self.registry)
        suite = self.registry.suite_for(self.reader)
        if suite is None:
            raise SystemExit(f"No installed suite accepts {model}")
        self.suite = suite
        self.seeds = range(seeds)
        self.settings = settings

    def fitted(self, concepts: Sequence[str]) -> efface.Erasure:
        """One fit for every TEXT:ANCHOR; none of them is among what it keeps."""
        wishes = [Wish(text, anchor).request(self.suite) for text, anchor in map(parts, concepts)]
        return efface.erase(
            self.pipe,
            [concept for wish in wishes for concept in wish.concepts],
            method="gloce",
            keep=list(dict.fromkeys(prompt for wish in wishes for prompt in wish.keep)),
            templates=wishes[0].templates,
            settings=self.settings,
            registry=self.registry,
        )

    def drawn(self, draws: Sequence[Draw], **options: Any) -> list[Any]:
        with fast_sampler(self.pipe):
            return [
                picture
                for draw in draws
                for picture in generate(
                    self.pipe,
                    [draw.prompt],
                    draw.seeds,
                    steps=STEPS,
                    guidance=self.suite.guidance or 7.5,
                    batch_size=len(draw.seeds),
                    **options,
                )
            ]

    def own(self, concept: str) -> tuple[Draw, ...]:
        """Each seed once, in the templates of the concept's kind."""
        (told,) = (one for one in self.suite.concepts() if one.text == concept)
        prompts = [template.replace("{}", concept) for template in self.suite.templates(told.kind)]
        return spread(prompts, self.seeds, batch_size=10)

    def shown(self, pictures: Sequence[Any], concept: str) -> float:
        """The share of pictures that show a concept."""
        return float((np.asarray(self.suite.found(pictures, concept)) >= SHOWN).mean())


def parts(concept: str) -> tuple[str, str]:
    """What is erased and its anchor, of TEXT:ANCHOR."""
    text, _, anchor = concept.partition(":")
    return text, anchor


def parted(erasure: efface.Erasure, registry: efface.Registry) -> list[efface.Erasure]:
    """One erasure for each concept of a fit: what it would have been, had it been fitted alone."""
    layers, terms = unpacked(erasure.fit), erasure.fit.facts["terms"]
    return [
        efface.Erasure.of(
            GLoCE(),
            efface.Fit(*packed({point: layer.at([row]) for point, layer in layers.items()}, [Terms(**terms[row])])),
            efface.Request((concept,)),
            origin=registry.origin(GLoCE),
            base=erasure.header.base,
            points=erasure.header.points,
        )
        for row, concept in enumerate(erasure.concepts)
    ]


class Opened:
    """Whether any gate opened in a picture of the batch under way; both its rows count, with guidance."""

    def __init__(self) -> None:
        self.rows: Tensor | None = None

    def __call__(self, layer: GatedLayer, gate: Gate, call: efface.Call) -> None:
        opened = (gate.open > 0).any(1)
        self.rows = opened if self.rows is None else self.rows | opened

    def taken(self, pictures: int) -> list[bool]:
        """For each picture of the batch, which is over."""
        rows, self.rows = self.rows, None
        assert rows is not None
        found: list[bool] = rows.view(-1, pictures).any(0).tolist()
        return found


def untouched(bench: Bench, concepts: Sequence[str]) -> Iterator[str]:
    yield "| concept | unrelated pictures | no gate opened | of these equal to the last bit |"
    yield "|---|---|---|---|"
    for concept in concepts:
        erasure = bench.fitted([concept])
        targets = Targets(bench.suite, (erasure.request,), bench.reader.neutral, tuple(bench.seeds), batch_size=10)
        (target,) = targets.all()
        before = bench.drawn(target.unrelated, output_type="latent")
        heard, after, opened = Opened(), [], []
        with efface.Editor(bench.pipe, erasure, registry=listening(heard)):
            for draw in target.unrelated:
                after += bench.drawn([draw], output_type="latent")
                opened += heard.taken(len(draw.seeds))
        same = [torch.equal(one, other) for one, other in zip(before, after, strict=True)]
        closed = [equal for equal, touched in zip(same, opened, strict=True) if not touched]
        yield f"| {concept} | {len(same)} | {len(closed)} | {sum(closed)} |"


def together(bench: Bench, concepts: Sequence[str]) -> Iterator[str]:
    began = time.perf_counter()
    erasures = parted(bench.fitted(concepts), bench.registry)
    taken = time.perf_counter() - began
    yield f"{len(concepts)} concepts, {len(bench.seeds)} pictures of each; the fit {taken:.0f} s"
    yield ""
    yield "| concept | shown before | erased alone | erased together | anchor alone | anchor together |"
    yield "|---|---|---|---|---|---|"
    texts = [parts(concept)[0] for concept in concepts]
    with efface.Editor(bench.pipe, *erasures) as editor:
        stacked = {text: bench.drawn(bench.own(text)) for text in texts}
        for entry, concept in zip(list(editor.entries), concepts, strict=True):
            text, anchor = parts(concept)
            editor.disable()
            before = bench.drawn(bench.own(text))
            editor.enable(entry.label)
            alone, both = bench.drawn(bench.own(text)), stacked[text]
            shares = [bench.shown(one, text) for one in (before, alone, both)]
            shares += [bench.shown(one, anchor) for one in (alone, both)]
            yield f"| {text} → {anchor} | " + " | ".join(f"{share:.2f}" for share in shares) + " |"
        editor.enable()
        yield ""
        yield "| what stays | shown before | with all of them erased |"
        yield "|---|---|---|"
        yield from kept(bench, editor, texts)


def kept(bench: Bench, editor: efface.Editor, erased: Sequence[str]) -> Iterator[str]:
    for one in bench.suite.concepts():
        if {one.text, *one.shows} & set(erased):
            continue
        editor.disable()
        before = bench.shown(bench.drawn(bench.own(one.text)), one.text)
        editor.enable()
        after = bench.shown(bench.drawn(bench.own(one.text)), one.text)
        yield f"| {one.text} | {before:.2f} | {after:.2f} |"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--model", default="picturebook")
    arguments.add_argument("--seeds", type=int, default=10)
    arguments.add_argument("--untouched", nargs="*", default=ALONE, metavar="TEXT:ANCHOR", help="one after the other")
    arguments.add_argument("--together", nargs="*", action="append", metavar="TEXT:ANCHOR", help="a stack")
    arguments.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    options = arguments.parse_args()
    settings = dict(pair.split("=", 1) for pair in options.set)
    bench = Bench(options.model, options.seeds, settings)
    tables = [untouched(bench, options.untouched)] if options.untouched else []
    tables += [together(bench, concepts) for concepts in (options.together or (TWO, TEN)) if concepts]
    for table in tables:
        for line in table:
            print(line, flush=True)
        print()


if __name__ == "__main__":
    main()
