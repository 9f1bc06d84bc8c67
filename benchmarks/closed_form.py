"""What the closed forms cost at SD 1.4's shapes: one solution for all layers, and a gate over a thousand concepts.

UCE (arXiv 2308.14761, eq. 7) edits 32 keys and values, m x 768 in float32. The literal loop does what the equation says
for each of them: it adds up two products for every concept, inverts one 768 x 768 matrix and multiplies. Its time is
taken on one matrix of each width and multiplied by how many there are, since all of one width cost the same. The solver
factors one problem, in float64, and changes the 32 weights by its map, in float32. They differ by what the loop's
inverse in float32 loses. Features are random, with a common part as those
of a text encoder have. The times of one line come from one run, the two ways taking turns.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import torch
from common import figure
from torch import Tensor
from torch.nn.functional import normalize

from efface.solver import Columns, Metric, Problem, duals, solve
from efface.wording import counted
from efface_erasepro.gate import Gate
from efface_erasepro.mass import NONE
from efface_hooks import LowRank

T = TypeVar("T")

D, TOKENS, KEPT, LAMB = 768, 77, 100, 0.5
WIDTHS = {320: 10, 640: 10, 1280: 12}  # how many of the 32 weights have how many rows
SCALE = 28.0  # about the norm of a token of SD 1.4's text
AIMS = {100: "at least 50"}
COLUMNS = 3  # of one concept when gated: its word, the end of the text, the padding


def features(count: int, generator: torch.Generator) -> Tensor:
    """Columns (d, n): a part that all share, and one of its own for each."""
    common, own = torch.randn(D, 1, generator=generator), torch.randn(D, count, generator=generator)
    return SCALE * normalize(common + own, dim=0)


def weights(generator: torch.Generator) -> list[Tensor]:
    return [torch.randn(rows, D, generator=generator) for rows, count in WIDTHS.items() for _ in range(count)]


def literal(weight: Tensor, targets: Tensor, anchors: Tensor) -> Tensor:
    """Eq. 7 for one weight, concept by concept."""
    values, inputs = LAMB * weight, LAMB * torch.eye(D)
    for column, anchor in zip(targets.T, anchors.T, strict=True):
        values = values + torch.outer(weight @ anchor, column)
        inputs = inputs + torch.outer(column, column)
    edited: Tensor = values @ torch.linalg.inv(inputs)
    return edited


def shared(layers: Sequence[Tensor], targets: Tensor, anchors: Tensor) -> tuple[list[Tensor], float]:
    """Eq. 7 for all weights by one map, and how many of the seconds went into solving."""
    start = time.perf_counter()
    delta = solve(Problem(soft=Columns.pairs(targets, anchors), lamb=LAMB)).delta
    solving = time.perf_counter() - start
    if isinstance(delta, LowRank):
        up, down = delta.up.float(), delta.down.float()
        return [torch.addmm(weight, weight @ up, down) for weight in layers], solving
    change = delta.weight.float()
    return [torch.addmm(weight, weight, change) for weight in layers], solving


def compare(count: int, rounds: int) -> str:
    """One line of the table."""
    generator = torch.Generator().manual_seed(count)
    layers = weights(generator)
    targets, anchors = features(count, generator), features(count, generator)
    first = {rows: next(weight for weight in layers if len(weight) == rows) for rows in WIDTHS}
    ratios, ours, solving, loops, gap = [], [], [], [], 0.0
    for _ in range(rounds):
        (edited, spent), whole = timed(lambda: shared(layers, targets, anchors))
        loop = 0.0
        for rows, weight in first.items():
            expected, once = timed(partial(literal, weight, targets, anchors))
            loop += WIDTHS[rows] * once
            found = next(one for one in edited if len(one) == rows)
            gap = max(gap, float((found - expected).norm() / expected.norm()))
        ratios.append(loop / whole)
        ours.append(whole)
        solving.append(spent)
        loops.append(loop)
    each = (statistics.median(values) for values in (ratios, loops, ours, solving))
    ratio, loop, whole, spent = each
    figure(f"UCE for {counted(count, 'concept')}: the literal loop, to ours", f"{ratio:.0f}", AIMS.get(count, ""))
    if count >= 1000:
        figure(f"UCE for {counted(count, 'concept')}: seconds to solve and apply", f"{whole:.2f}", "at most 1")
    return f"{count:8} {ratio:8.0f} x {loop:12.2f} s {whole:12.3f} s {spent:12.3f} s {gap:14.1e}"


def gate(count: int, generator: torch.Generator) -> tuple[Gate, Mapping[str, Tensor]]:
    """A gate over `count` one-word concepts, of synthetic features."""
    hard = Columns.joined(
        [
            Columns.still(features(5, generator)),
            Columns.pairs(features(COLUMNS * count, generator), features(COLUMNS * count, generator)),
        ]
    )
    problem = Problem(hard=hard, keep=features(KEPT, generator), lamb=LAMB)
    tensors = {
        "targets": hard.inputs.float(),
        "change": hard.change.float(),
        "duals": duals(problem, Metric.of(problem)).float(),
        "owners": torch.cat([torch.full((5,), NONE), torch.arange(count).repeat_interleave(COLUMNS)]),
        "words": torch.arange(count)[:, None],
        "signatures": normalize(features(count, generator).T, dim=1),
        "similar": torch.full((count,), 0.98),
    }
    return Gate(tensors, 0.98), tensors


class Prompts:
    """What a gate reads of a call: one prompt with its negative one, `active` of the concepts in it."""

    def __init__(self, tensors: Mapping[str, Tensor], active: int, generator: torch.Generator) -> None:
        self.text = features(2 * TOKENS, generator).T.reshape(2, TOKENS, D).contiguous()
        self.ids = torch.full((2, TOKENS), -2)
        for place in range(active):
            self.text[1, 1 + place] = tensors["targets"][:, 5 + COLUMNS * place]
            self.ids[1, 1 + place] = place


def gated(count: int, active: int, rounds: int) -> str:
    """Milliseconds that a prompt costs, and those that each call of the U-Net costs after that."""
    generator = torch.Generator().manual_seed(0)
    found, tensors = gate(count, generator)
    prompts = Prompts(tensors, active, generator)
    once = [timed(lambda: found.moves(prompts))[1] for _ in range(rounds + 1)][1:]  # type: ignore[arg-type]
    moves = found.moves(prompts)  # type: ignore[arg-type]
    figure(
        f"gated ErasePro for {counted(count, 'concept')}, {active} of them in a prompt: milliseconds once a prompt",
        f"{1e3 * statistics.median(once):.1f}",
        "at most 10",
    )
    calls = [0.0] if moves is None else [timed(lambda: moves(prompts.text))[1] for _ in range(rounds)]
    return (
        f"{count:8} {active:8} {1e3 * statistics.median(once):10.2f} ms (largest {1e3 * max(once):.2f})"
        f" {1e3 * statistics.median(calls):10.2f} ms"
    )


def timed(call: Callable[[], T]) -> tuple[T, float]:
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--concepts", type=int, nargs="+", default=[1, 10, 100, 1000])
    arguments.add_argument("--rounds", type=int, default=3)
    options = arguments.parse_args()
    print(f"UCE, 32 keys and values of {D} columns, {torch.get_num_threads()} threads")
    print(f"{'concepts':>8} {'ratio':>10} {'loop':>14} {'ours':>14} {'of it solving':>14} {'they differ by':>14}")
    for count in options.concepts:
        print(compare(count, options.rounds if count <= 100 else 1), flush=True)
    print(f"Gated ErasePro, {COLUMNS} columns per concept, a prompt of {TOKENS} tokens with its negative one")
    print(f"{'concepts':>8} {'active':>8} {'once a prompt':>13} {'each call of the U-Net':>38}")
    for active in (0, 1, 3):
        print(gated(max(options.concepts), active, 20), flush=True)


if __name__ == "__main__":
    main()
