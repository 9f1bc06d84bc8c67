"""What RealEra's stage 2 costs: evaluations of the U-Net, against a trajectory of its own for every iteration.

The literal scheme is that of the only public code, a third party's port: 500 iterations, each with a guided trajectory
of 50 steps down to a random one, and then the predictions of its losses. Both are run on a tiny random pipeline with
their own settings, and every prompt that passes through the U-Net is counted, those of RealEra's mining too; how many
there are does not depend on the model. The literal scheme's iterations are alike but for the step at which the
trajectory ends, so a few of them, spread evenly over the steps, stand for all.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from common import figure

import efface
from efface.testing import tiny_pipeline

ITERATIONS, STEPS, GUIDANCE = 500, 50, 3.0
FROZEN, CONCEPT, NEAR, BEYOND = 3, 1, 5, 2 * 3  # beyond-concept points before and after
LAST = 1000
WORDS = (
    "red",
    "blue",
    "small",
    "big",
    "old",
    "new",
    "wooden",
    "painted",
    "striped",
    "distant",
    "bright",
    "dark",
    "quiet",
    "round",
)
THINGS = (
    "bird",
    "fish",
    "house",
    "tree",
    "flower",
    "boat",
    "hat",
    "lamp",
    "chair",
    "table",
    "road",
    "river",
    "hill",
    "stone",
    "cloud",
)
BANK = tuple(f"{word} {thing}" for word in WORDS for thing in THINGS)


def evaluations(pipe: Any, act: Callable[[], object]) -> int:
    """Prompts that pass through the U-Net while something is done."""
    seen: list[int] = []

    def count(_module: torch.nn.Module, args: tuple[torch.Tensor, ...], _output: Any) -> None:
        seen.append(len(args[0]))

    handle = pipe.unet.register_forward_hook(count)
    try:
        act()
    finally:
        handle.remove()
    return sum(seen)


def fit(pipe: Any, steps: int) -> efface.Erasure:
    """RealEra as it is used, with a bank that fills the shortlist and neighbours enough for every step."""
    settings = {"steps": steps, "bank": BANK, "s_lo": -0.5, "s_beyond": -0.5}
    keep = ["a van", "van gogh"]
    return efface.erase(pipe, "cat", anchor="dog", keep=keep, method="realera", settings=settings)


@torch.no_grad()
def iterate(model: efface.Model, step: int) -> None:
    """The forward passes of one iteration of the literal scheme whose trajectory ends after `step` steps."""
    until = LAST * (STEPS - step) // STEPS
    x = model.denoise(model.encode(["a cat"]), model.noise([step]), steps=STEPS, guidance=GUIDANCE, until=until)
    for prompts in (FROZEN, CONCEPT, NEAR, BEYOND):
        model.predict(x.expand(prompts, *x.shape[1:]), until, model.encode(["a cat"] * prompts))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--steps", type=int, default=200)
    arguments.add_argument("--iterations", type=int, default=10, help="of the literal scheme, which are run")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    pipe = tiny_pipeline("sd1")
    model, every = efface.Model(pipe), STEPS // options.iterations
    found = evaluations(pipe, lambda: fit(pipe, options.steps))
    ends = range(every // 2, STEPS, every)
    some = evaluations(pipe, lambda: [iterate(model, step) for step in ends])
    literal = some * ITERATIONS // len(ends)
    print(f"RealEra, mining and stage 2: {found} evaluations of the U-Net in {options.steps} steps")
    figure(
        "RealEra's second stage: evaluations of a trajectory for each iteration, to ours",
        f"{literal / found:.1f}",
        "at least 6",
    )
    print(f"a trajectory in each of {ITERATIONS} iterations: {literal}, {literal / found:.1f} times as many")


if __name__ == "__main__":
    main()
