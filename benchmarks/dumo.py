"""What DuMo costs: a pass with active and with inactive concepts, and training against fresh trajectories.

The U-Net has the width and depth of SD 1.5 with random weights. Operations are counted on 64 x 64 latents without
computing anything. Times are taken on smaller ones, edited and plain calls alternating: processor time, the least of
all rounds. `--ablation` fits and evaluates instead: the branch alone, and with a table by time, by layer and by both,
all from the same branch.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from common import Holder, figure, seconds
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import efface
from efface.evaluation.evaluating import evaluate
from efface.evaluation.gallery import Gallery, usual_folder
from efface.evaluation.scores import Estimate, Scores
from efface.report.example import Wish
from efface.testing import full_unet, tiny_pipeline
from efface_dumo.acceleration import accelerated
from efface_dumo.branch import Branch, fresh_tensors
from efface_dumo.conditions import rows_of
from efface_dumo.dumo import DuMo
from efface_dumo.fitting import Fitting
from efface_dumo.halves import encoded
from efface_dumo.lesson import Lesson
from efface_dumo.packing import Part, packed
from efface_dumo.skeleton import config_of, empty_unet
from efface_dumo.training import Banks, Training
from efface_hooks import Wiring

SD15 = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
FRESH_STEPS = 50  # of a trajectory in the scheme that is compared with
ABLATION = {"branch alone": "none", "by time": "time", "by layer": "layer", "by time and layer": "time_layer"}
FIGURES = ("efficacy", "generality", "specificity_drop", "locality_other", "fidelity_mae", "quality")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--size", type=int, default=16, help="rows and columns of the latents that times are for")
    arguments.add_argument("--ablation", metavar="TEXT[:ANCHOR]", help="compare tables on this concept of picturebook")
    arguments.add_argument("--seeds", type=int, default=20, help="of the ablation")
    arguments.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="settings of the ablation")
    arguments.add_argument("--checkpoints", type=Path, help="where the ablation keeps its branch")
    options = arguments.parse_args()
    if options.ablation:
        settings = dict(pair.split("=", 1) for pair in options.set)
        ablation(options.ablation, settings, options.seeds, options.checkpoints)
    else:
        counted()
        shared(options.rounds)
        timed(options.rounds, options.size)


def counted() -> None:
    """Operations of a pass and of a training."""
    unet, branch = empty_unet(SD15), Branch(SD15)
    with torch.device("meta"):
        sample, timestep, text = torch.randn(2, 4, 64, 64), torch.ones(2), torch.randn(2, 77, 768)
    whole = operations(lambda: unet(sample, timestep, encoder_hidden_states=text))
    beside = operations(lambda: branch(sample, timestep, text, None))
    first = operations(lambda: encoded(unet, sample, timestep, text, None))
    print(f"guided pair: U-Net {whole / 1e12:.3f} TFLOP, branch {beside / 1e12:.3f}, {beside / whole:+.1%} per concept")
    figure("DuMo, an active concept: operations beside the U-Net's", f"{beside / whole:.1%}")
    print(f"encoder and mid block are {first / whole:.1%} of the U-Net")
    trained(first / whole, beside / whole)


def operations(call: Callable[[], object]) -> float:
    """Floating-point operations of a call on tensors without storage."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        call()
    return float(counter.get_total_flops())


def trained(encoder: float, branch: float) -> None:
    """U-Net evaluations of stage 1, forward passes alone, from the counters of a bank, a step and a refreshment.

    Compared with a guided trajectory by the edited model for every erased row, down to a random one of its steps,
    another one by the base for every retained row, and then the predictions one by one.
    """

    def cost(training: Training) -> float:
        spent = training.student.evaluations
        found = encoder * spent["encoder"] + (1 - encoder) * spent["decoder"] + branch * spent["branch"]
        spent.clear()
        return found

    method = DuMo()
    with started(method, tiny_pipeline("sd1")) as training:
        banks = training.banks(method.trajectories, "bank")
        bank = cost(training)
        training.predicted(training.lesson(banks, method.batch, "step"))
        step = cost(training)
        training.trajectories(training.prompts.erased[torch.zeros(method.refresh).long()], "", edited=True)
        renewed = cost(training) * ((method.steps - 1) // method.refresh_every) if method.refresh_every else 0.0
    ours = (bank + renewed) / method.steps + step
    print(f"stage 1, U-Net evaluations for a step, the branch's share included: {ours:.1f}")
    for steps in (FRESH_STEPS, method.sample_steps):
        erased, retained = (steps - 1) * (1 + branch) + 2 + 1 + branch, steps - 1 + 1 + 1 + branch
        fresh = method.batch * (erased + method.retained * retained)
        print(f"  with fresh trajectories of {steps} steps: {fresh:.1f}; ours is {ours / fresh:.3f} of that")
        figure(
            f"DuMo's stage 1: U-Net evaluations of a step, to those with trajectories of {steps} steps",
            f"{ours / fresh:.3f}",
            "at most 0.2",
        )


@contextmanager
def started(method: DuMo, pipe: Any) -> Iterator[Training]:
    """A training before its first step."""
    request = efface.Request((efface.Concept("cat", "dog"),), keep=("fish",))
    with accelerated(torch.device("cpu"), "no") as accelerator:
        yield Fitting.of(method, efface.Model(pipe), request, efface.Run(), accelerator).training(0)


def shared(rounds: int) -> None:
    """Targets and features of a step on picturebook, with the encoder shared by teacher and student and without."""
    pipe = efface.load("picturebook")
    for eta in (0.0, 1.0):
        with started(DuMo(eta=eta, trajectories=4, sample_steps=4), pipe) as training:
            banks = training.banks(4, "bank")
            given = training.lesson(banks, training.settings.batch, "some")
            ratios = [ratio(training, banks, given) for _ in range(rounds + 1)][1:]
        found = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} .. {max(ratios):.2f})"
        print(f"targets of a step, eta {eta:g}: {found} times as long with nothing shared")
        figure(f"DuMo's targets, eta {eta:g}: time with no shared encoder, to ours", f"{statistics.median(ratios):.2f}")


def ratio(training: Training, banks: Banks, given: Lesson) -> float:
    return seconds(lambda: apart(training, given)) / seconds(lambda: training.lesson(banks, given.erased, "some"))


@torch.no_grad()
def apart(training: Training, given: Lesson) -> None:
    """What a lesson computes, every prediction by a pass of its own."""
    student, prompts, count = training.student, training.prompts, given.erased
    anchors = prompts.anchors[torch.zeros(count, dtype=torch.long)]
    rows = torch.arange(len(given.sample)) if training.settings.eta else torch.arange(count, len(given.sample))
    sample, timestep = (torch.cat([x[:count], x[rows]]) for x in (given.sample, given.timestep))
    student.plain(sample, timestep, rows_of(anchors, given.conditions[rows]))
    student.features(given.sample, given.timestep, given.conditions)


@torch.no_grad()
def timed(rounds: int, size: int) -> None:
    """Times of a guided pass with concepts on it, as ratios to the plain one."""
    torch.manual_seed(0)
    pipe = Holder(full_unet())
    sample, text = torch.randn(2, 4, size, size), torch.randn(2, 77, 768)

    def call() -> None:
        pipe.unet(sample, 500, encoder_hidden_states=text)

    print(f"a pass on {size} x {size} latents, {torch.get_num_threads()} threads, to the plain call:")
    for name, (concepts, enabled) in cases(pipe.unet).items():
        patch = efface.Patch(pipe)
        for method, fit in concepts:
            method.apply(patch, [fit])
        edited, plain = compared(pipe, [patch] if enabled else [], call, rounds)
        found = min(edited) / min(plain)
        print(f"  {name:28} {found:.3f} ({min(edited):.2f} s, plain {min(plain):.2f} s)", flush=True)
        figure(
            f"DuMo, {name}: a U-Net call, to the plain one", f"{found:.3f}", "" if "active" in name else "at most 1.01"
        )


def cases(unet: Any) -> dict[str, tuple[list[tuple[DuMo, efface.Fitted]], bool]]:
    """Concepts, and whether they are enabled."""
    active = branch_for(unet)
    return {
        "one active concept": ([active], True),
        "two active concepts": ([active, active], True),
        "one concept, gate closed": ([branch_for(unet, factor=0.0)], True),
        "one concept, table row of 0": ([branch_for(unet, numbers=torch.zeros(20, 13))], True),
        "one concept, disabled": ([active], False),
    }


def branch_for(unet: Any, factor: float = 1.0, numbers: Tensor | None = None) -> tuple[DuMo, efface.Fitted]:
    """A random branch for a U-Net; a factor of 0 closes the gate, `numbers` are the table."""
    config = config_of(unet)
    fresh = fresh_tensors(unet, Branch(config))
    tensors = {name: tensor + 1e-3 if "joints" in name else tensor for name, tensor in fresh.items()}
    table = torch.ones(20, 13) if numbers is None else numbers
    part = Part(tensors, {"table": table}, torch.zeros(1, 77, 768), ("x",), [[0]])
    fit = packed([part], config, [])
    return DuMo(gate_factor=factor, store="float32"), efface.Fitted(fit, efface.Request((efface.Concept("x"),)))


def compared(
    pipe: Any, patches: list[efface.Patch], call: Callable[[], None], rounds: int
) -> tuple[list[float], list[float]]:
    """Seconds of edited calls and of plain ones, which of the two comes first alternating; the first warms up."""
    wiring = Wiring(pipe)

    def edited() -> float:
        wiring.set(patches)
        try:
            return seconds(call)
        finally:
            wiring.clear()

    edited()
    pairs = []
    for place in range(rounds):
        one, other = (edited(), seconds(call)) if place % 2 else (seconds(call), edited())
        pairs.append((one, other) if place % 2 else (other, one))
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def ablation(concept: str, settings: Mapping[str, str], seeds: int, checkpoints: Path | None) -> None:
    """Every kind of table after the same stage 1, as a Markdown table."""
    pipe, registry = efface.load("picturebook"), efface.Registry.installed()
    suite = registry.suite_for(efface.Model(pipe))
    text, _, anchor = concept.partition(":")
    request = Wish(text, anchor or None).request(suite)
    print("| | " + " | ".join(f"`{name}`" for name in FIGURES) + " | erase loss | retain loss |")
    print("|---" * (len(FIGURES) + 3) + "|")
    with tempfile.TemporaryDirectory() as temporary:
        for name, table in ABLATION.items():
            erasure = efface.erase(
                pipe,
                request.concepts,
                method="dumo",
                keep=request.keep,
                templates=request.templates,
                settings={**settings, "table": table},
                folder=checkpoints or Path(temporary),
                progress=lambda done, total, what, name=name: told(name, done, total, what),
            )
            found = evaluate(
                pipe,
                [erasure],
                model="picturebook",
                registry=registry,
                suite=suite,
                seeds=range(seeds),
                gallery=Gallery(usual_folder()),
                progress=lambda done, total, what, name=name: told(name, done, total, what),
            )
            (scores,), losses = found.concepts.values(), erasure.header.report[text]["held out"]["stored"]
            cells = [cell(scores, figure) for figure in FIGURES] + [f"{loss:.2e}" for loss in losses.values()]
            print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def told(name: str, done: int, total: int, what: str) -> None:
    print(f"\r{name}, {what}: {done} of {total}   ", end="", file=sys.stderr)


def cell(scores: Scores, figure: str) -> str:
    found: Estimate | None = getattr(scores, figure)
    return "" if found is None else f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"


if __name__ == "__main__":
    main()
