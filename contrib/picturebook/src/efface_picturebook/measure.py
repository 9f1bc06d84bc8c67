"""Measure the base model by the detector: `python -m efface_picturebook.measure --out quality.json`."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image

import efface
import efface_picturebook
from efface import writing
from efface.concept import Kind
from efface.evaluation.intervals import rate
from efface.suite import SHOWN
from efface_picturebook import held_out
from efface_picturebook.detector import SEEN, THINGS
from efface_picturebook.held_out import Answers
from efface_picturebook.judge import Judge
from efface_picturebook.quality import Quality, Rates, Sharpness, table
from efface_picturebook.suite import PicturebookSuite

log = logging.getLogger(__name__)

STEPS, BATCH = 15, 10
HELD_OUT = 2_400
SEEDS_PER_SCENE_SEED = 25

Wanted = tuple[str, int]
"""A prompt and a seed."""
Draw = Callable[[Sequence[Wanted]], list[Image]]


def artist(folder: Path | str, guidance: float) -> Draw:
    """Draw (prompt, seed) pairs with the pipeline in a folder, by DPM-Solver++ in 15 steps."""
    from diffusers import DPMSolverMultistepScheduler

    pipe = efface.load(folder)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)

    def draw(wanted: Sequence[Wanted]) -> list[Image]:
        images: list[Image] = pipe(
            [prompt for prompt, _ in wanted],
            generator=[torch.Generator().manual_seed(seed) for _, seed in wanted],
            num_inference_steps=STEPS,
            guidance_scale=guidance,
        ).images
        return images

    return draw


def asked(templates: Sequence[str], text: str, seeds: int) -> list[Wanted]:
    """One picture for each seed, the templates in turn."""
    return [(templates[seed % len(templates)].replace("{}", text), seed) for seed in range(seeds)]


@dataclass(frozen=True)
class Pair:
    """A picture of two objects."""

    wanted: Wanted
    objects: tuple[str, str]


def pairs(suite: efface.Suite, seeds: int) -> list[Pair]:
    """The two-object prompts of the suite, the first of every object first, again and again with another seed.

    Each prompt comes once for `SEEDS_PER_SCENE_SEED` seeds; fewer seeds leave the last prompts out.
    """
    rounds = zip(
        *([(scene, one.text) for scene in suite.scenes(one.text)] for one in suite.concepts("object")), strict=True
    )
    objects = {scene.prompt: (text, scene.other) for told in rounds for scene, text in told}
    count = max(1, len(objects) * seeds // SEEDS_PER_SCENE_SEED)
    endless = ((prompt, seed, both) for seed in range(seeds) for prompt, both in objects.items())
    return [Pair((prompt, seed), both) for prompt, seed, both in islice(endless, count)]


def measured(
    suite: PicturebookSuite, draw: Draw, seeds: int, advance: Callable[[int], object], renders: int = HELD_OUT
) -> Quality:
    """Draw everything and judge it; `advance` is told of every batch of pictures."""

    def drawn(wanted: Sequence[Wanted]) -> list[Image]:
        return [image for batch in _batches(wanted) for image in _told(draw(batch), advance)]

    def shown(kind: Kind) -> Rates:
        return {
            one.text: rate(suite.found(drawn(asked(suite.templates(kind), one.text, seeds)), one.text) >= SHOWN)
            for one in suite.concepts(kind)
        }

    scenes = pairs(suite, seeds)
    found = both_found(suite.judge, drawn([scene.wanted for scene in scenes]), scenes)
    return Quality(
        seeds=seeds,
        objects=shown("object"),
        styles=shown("style"),
        persons=shown("person"),
        both=rate(found.min(1)),
        either=rate(found.max(1)),
        renders=sharpness(held_out.answers(suite.judge, renders)),
        detector=suite.digest,
    )


def both_found(judge: Judge, images: Sequence[Image], scenes: Sequence[Pair]) -> NDArray[np.bool_]:
    """Whether each picture shows each of its two objects, (n, 2)."""
    verdicts = judge.verdicts(images)
    wanted = np.array([[SEEN.index(name) for name in scene.objects] for scene in scenes])
    return np.take_along_axis(verdicts.presences, wanted, 1) >= SHOWN


def sharpness(answers: Answers) -> Sharpness:
    """The detector's rates per object and character, and over all objects."""
    return Sharpness(
        recall={name: rate(answers.recall([name])) for name in SEEN},
        false_positives={name: rate(answers.false_positives([name])) for name in SEEN},
        iou={name: answers.iou([name]) for name in THINGS},
        all_recall=rate(answers.recall()),
        all_false_positives=rate(answers.false_positives()),
        all_iou=answers.iou(),
        style=rate(answers.style),
        invented=rate(answers.invented),
    )


def pictures(suite: efface.Suite, seeds: int) -> int:
    """How many pictures a measurement draws."""
    return seeds * len(suite.concepts()) + len(pairs(suite, seeds))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    line = argparse.ArgumentParser(prog="python -m efface_picturebook.measure", description=__doc__)
    line.add_argument("--pipeline", type=Path, help="another pipeline folder")
    line.add_argument("--seeds", type=int, default=50, help="pictures of each concept")
    line.add_argument("--out", type=Path, default=Path("quality.json"), help="where the figures go, as JSON")
    return line


def main(arguments: list[str] | None = None) -> None:
    """Measure, write the figures to a file, and write them out as a table."""
    options = parser().parse_args(arguments)
    if options.seeds < 1:
        raise SystemExit("--seeds must be at least 1")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    suite = PicturebookSuite()
    total, done = pictures(suite, options.seeds), 0

    def advance(more: int) -> None:
        nonlocal done
        done += more
        log.info("%d of %d pictures", done, total)

    draw = artist(options.pipeline or efface_picturebook.weights(), suite.guidance)
    quality = measured(suite, draw, options.seeds, advance)
    writing.write(options.out, (json.dumps(quality.to_json(), indent=1) + "\n").encode())
    sys.stdout.write(table(quality) + "\n")


def _batches(wanted: Sequence[Wanted]) -> Iterator[Sequence[Wanted]]:
    return (wanted[i : i + BATCH] for i in range(0, len(wanted), BATCH))


def _told(images: list[Image], advance: Callable[[int], object]) -> list[Image]:
    advance(len(images))
    return images


if __name__ == "__main__":
    main()
