"""What a stack of erasures costs per U-Net call, against the sum of what its erasures cost alone, in one run.

Four sorts of edit stand for the methods: one thin map of the text (closed forms), thin maps and adds at every value
projection (adapters), a gated thin edit of every cross-attention output, and an edit of every skip connection. A round
measures each sort alone and the stack, every one between two plain calls whose mean it is held against, so that a
machine that is slower for a while is slower for both. Times are the processor's; the cost is the median of all rounds.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from itertools import cycle, islice

import torch
from common import Holder, figure, seconds
from torch import Tensor

from efface.testing import full_unet
from efface_hooks import Call, LowRank, Patch, Wiring

RANK = 4


def thin(outs: int, ins: int) -> LowRank:
    return LowRank(torch.randn(outs, RANK) * 1e-3, torch.randn(RANK, ins))


def text_map(patch: Patch) -> None:
    width = next(point.in_features for point in patch.points if point.kind == "text") or 0
    patch.map("unet.text", thin(width, width))


def value_changes(patch: Patch) -> None:
    for point in patch.points:
        if point.kind == "cross_attn.v":
            patch.map(point, thin(point.in_features or 0, point.in_features or 0))
            patch.add(point, thin(point.out_features or 0, point.in_features or 0))


def gated_outputs(patch: Patch) -> None:
    for point in patch.points:
        if point.kind == "cross_attn.out":
            patch.output(point, gated(thin(point.out_features or 0, point.out_features or 0)))


def gated(change: LowRank) -> Callable[[Tensor, Call], Tensor]:
    down, up = change.down.T.contiguous(), change.up.T.contiguous()

    def edit(x: Tensor, call: Call) -> Tensor:
        inside = x @ down
        return x + torch.sigmoid(inside.square().sum(-1, keepdim=True) - 1) * (inside @ up)

    return edit


def skip_edits(patch: Patch) -> None:
    for point in patch.points:
        if point.kind == "skip":
            patch.output(point, lambda x, call: x * (1 - call.timestep.view(-1, 1, 1, 1) / 1e5))


SORTS = {
    "text map": text_map,
    "value maps and adds": value_changes,
    "gated outputs": gated_outputs,
    "skips": skip_edits,
}


@torch.no_grad()
def cost(pipe: Holder, patches: list[Patch], given: tuple[Tensor, int, Tensor]) -> float:
    """What these patches add to a call of the U-Net, as a share of the plain call."""
    before = seconds(lambda: pipe.unet(*given))
    wiring = Wiring(pipe)
    wiring.set(patches)
    try:
        pipe.unet(*given)  # places their factors
        edited = seconds(lambda: pipe.unet(*given))
    finally:
        wiring.clear()
    after = seconds(lambda: pipe.unet(*given))
    return edited / ((before + after) / 2) - 1


def patched(pipe: Holder, put: Callable[[Patch], None]) -> Patch:
    patch = Patch(pipe)
    put(patch)
    return patch


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--width", type=int, default=64, help="320 is Stable Diffusion 1.5's")
    arguments.add_argument("--latents", type=int, default=32)
    arguments.add_argument("--rounds", type=int, default=15)
    options = arguments.parse_args()
    torch.manual_seed(0)
    pipe = Holder(full_unet(block_out_channels=tuple(options.width * factor for factor in (1, 2, 4, 4))))
    given = (torch.randn(2, 4, options.latents, options.latents), 500, torch.randn(2, 77, 768))
    print(f"width {options.width}, latents {options.latents}, {torch.get_num_threads()} threads, rank {RANK}")
    for count in (1, 5, 20):
        report(pipe, given, count, options.rounds)


def report(pipe: Holder, given: tuple[Tensor, int, Tensor], count: int, rounds: int) -> None:
    """One line: the stack of `count` erasures, the sorts taken in turn (a stack of one is a text map)."""
    names = list(islice(cycle(SORTS), count))
    stack = [patched(pipe, SORTS[name]) for name in names]
    singles = {name: stack[names.index(name)] for name in dict.fromkeys(names)}
    runs: dict[str, list[Patch]] = {**{name: [one] for name, one in singles.items()}, "stack": stack}
    measured: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, patches in runs.items():
            measured[name].append(cost(pipe, patches, given))
    middle = {name: statistics.median(found) for name, found in measured.items()}
    parts = sum(middle[name] for name in names)
    low, *_, high = statistics.quantiles(measured["stack"], n=4)
    alone = ", ".join(f"{name} {middle[name]:+.1%}" for name in singles)
    print(
        f"stack of {count:2}: {middle['stack']:+.1%} of the plain call (half of the rounds {low:+.1%} to {high:+.1%}), "
        f"sum of parts {parts:+.1%}; alone: {alone}",
        flush=True,
    )
    figure(
        f"what {count} erasure{'s add' if count > 1 else ' adds'} to a U-Net call, and the sum of what each adds alone",
        f"{middle['stack']:+.1%}, {parts:+.1%}",
        "no more than the sum",
    )


if __name__ == "__main__":
    main()
