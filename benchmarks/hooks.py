"""What edits cost: a U-Net call with edits that change nothing, as a ratio to the plain call, alternating in one run.

The U-Net has the width and depth of SD 1.5 with random weights; latents are 32 x 32, a quarter of the usual area, so
that the overhead weighs more than it would for a user.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import torch
from common import Holder, figure, seconds

from efface.testing import full_unet
from efface_hooks import Call, LowRank, Patch, Wiring, points


def identity(tensor: torch.Tensor, call: Call) -> torch.Tensor:
    return tensor


def patches(pipe: Any, count: int) -> dict[str, Callable[[Patch], None]]:
    places = [*points(pipe, "cross_attn.out"), *points(pipe, "skip")][:count]
    factors = LowRank(torch.zeros(768, 1), torch.zeros(1, 768))

    def outputs(patch: Patch) -> None:
        for place in places:
            patch.output(place, identity)

    def maps(patch: Patch) -> None:
        for _ in range(count):
            patch.map("unet.text", factors)

    return {f"{count} identity edits at {count} points": outputs, f"{count} rank-1 maps at unet.text": maps}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--width", type=int, default=320)
    arguments.add_argument("--rounds", type=int, default=9)
    arguments.add_argument("--edits", type=int, default=20)
    options = arguments.parse_args()
    model = full_unet(block_out_channels=tuple(options.width * factor for factor in (1, 2, 4, 4)))
    holder = Holder(model)
    sample, text = torch.randn(2, 4, 32, 32), torch.randn(2, 77, 768)
    print(
        f"U-Net of {sum(weight.numel() for weight in model.parameters()) / 1e6:.0f} M parameters, "
        f"{torch.get_num_threads()} threads"
    )
    for name, put in patches(holder, options.edits).items():
        patch = Patch(holder)
        put(patch)
        ratios, plain_times = compared(model, holder, patch, sample, text, options.rounds)
        print(
            f"{name:34} ratio to the plain call: median {statistics.median(ratios):.4f} "
            f"({min(ratios):.4f} .. {max(ratios):.4f}), plain {statistics.median(plain_times):.2f} s"
        )
        figure(f"a U-Net call with {name}, to the plain one", f"{statistics.median(ratios):.3f}")


@torch.no_grad()
def compared(
    model: Any, pipe: Any, patch: Patch, sample: torch.Tensor, text: torch.Tensor, rounds: int
) -> tuple[list[float], list[float]]:
    """Ratios edited / plain of neighbouring calls, and the plain seconds."""
    wiring = Wiring(pipe)
    ratios, plain_times = [], []
    for round_ in range(rounds + 1):
        plain = seconds(lambda: model(sample, 500, text))
        wiring.set([patch])
        edited = seconds(lambda: model(sample, 500, text))
        wiring.clear()
        if round_:
            ratios.append(edited / plain)
            plain_times.append(plain)
    return ratios, plain_times


if __name__ == "__main__":
    main()
