"""What many GLoCE concepts cost: one product for all gates, against a loop over concepts and the literal formula.

One cross-attention layer of SD 1.5 at 64 x 64 tokens and 320 channels, two rows (guidance), random numbers; the three
ways take turns in one run. Memory is the most that the tensors made on the way hold at once. `--unet` measures a whole
U-Net of SD 1.5's size (random weights) with gates at every cross-attention layer, as a ratio to the plain call. Times
are the processor's, the least of all rounds, so that other work on the machine counts little.
"""

from __future__ import annotations

import argparse
import weakref
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from common import Holder, figure, seconds
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from efface.testing import full_unet
from efface.wording import counted
from efface_gloce.gated import GatedLayer, Terms
from efface_gloce.layer import Layer
from efface_hooks import Patch, Wiring, points

ROWS, TOKENS, CHANNELS = 2, 64 * 64, 320
RANK = 2
LITERAL = "literal (B, N, T, D)"
AIMS = {50: "at most 1.04", 1000: "at most 1.25"}
EVERYTHING = Terms(eta=1.0, first=1000, last=0)
CALL: Any = SimpleNamespace(timestep=torch.zeros(ROWS))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--concepts", type=int, nargs="+", default=[1, 10, 50, 100])
    arguments.add_argument("--open", type=float, default=0.05, help="share of tokens with an open gate")
    arguments.add_argument("--literal", type=int, default=50, help="most concepts for the literal formula")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--unet", type=int, nargs="*", help="numbers of concepts on a whole U-Net")
    arguments.add_argument("--size", type=int, default=32, help="rows and columns of the U-Net's latents")
    options = arguments.parse_args()
    if options.unet is None:
        one_layer(options.concepts, options.open, options.literal, options.rounds)
    else:
        whole_unet(options.unet, options.size, options.open, options.rounds)


@torch.no_grad()
def one_layer(counts: Sequence[int], share: float, largest: int, rounds: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, TOKENS, CHANNELS, generator=generator)
    print(
        f"one layer, {ROWS} x {TOKENS} x {CHANNELS}, {share:.0%} of the tokens open, {torch.get_num_threads()} threads"
    )
    for count in counts:
        layer = random_layer(count, CHANNELS, x, share, generator)
        gated = GatedLayer("point", layer, [EVERYTHING] * count, tie_break="first")  # as the formula has it
        ways: dict[str, Callable[[], Tensor]] = {
            "ours": lambda gated=gated: gated(x, CALL),
            "loop over concepts": lambda layer=layer: looped(layer, x),
        }
        if count <= largest:
            ways[LITERAL] = lambda layer=layer: literal(layer, x)
        report(count, ways, rounds)


def report(count: int, ways: dict[str, Callable[[], Tensor]], rounds: int) -> None:
    wanted = ways["ours"]()
    times: dict[str, list[float]] = {name: [] for name in ways}
    for name, way in ways.items():
        difference = float((way() - wanted).abs().max())
        if difference > 1e-2:
            raise SystemExit(f"{name} differs by {difference:g}")
    for _ in range(rounds):
        for name, way in ways.items():
            times[name].append(seconds(way))
    own, held = min(times["ours"]), {name: peak(way) for name, way in ways.items()}
    for name, memory in held.items():
        least = min(times[name])
        print(f"N = {count:4}  {name:22} {least:8.3f} s  x {least / own:6.2f}  {memory / 2**20:8.1f} MiB")
        if name == LITERAL:
            what = f"GLoCE, {counted(count, 'concept')} in a layer"
            figure(f"{what}: the literal formula's time, to ours", f"{least / own:.0f}", "at least 20")
            figure(f"{what}: our memory, to its", f"{held['ours'] / memory:.1%}", "at most 5%")


def random_layer(count: int, channels: int, x: Tensor, share: float, generator: torch.Generator) -> Layer:
    """Concepts around one centre whose thresholds leave a share of the tokens of x open."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    map_basis = torch.linalg.qr(normal(count, channels, RANK)).Q
    gate_basis = torch.nn.functional.normalize(normal(count, channels, 1), dim=1)
    centre = normal(1, channels).expand(count, channels)
    away = torch.nn.functional.normalize(x - centre[0], dim=-1)
    nearest = (away @ gate_basis[:, :, 0].T).square().amax(-1).flatten()
    return Layer(
        centre=centre,
        gate_basis=gate_basis,
        map_basis=map_basis,
        map_mean=normal(count, channels),
        slope=torch.full((count,), 1838.05),
        target_mean=normal(count, channels),
        threshold=nearest.quantile(1 - share).expand(count),
        update=map_basis,
    )


def looped(layer: Layer, x: Tensor) -> Tensor:
    """One concept after another, keeping the best gate of every token and what that concept makes of it."""
    best, result = torch.full(x.shape[:-1], -1.0), x
    for n in range(layer.concepts):
        away = x - layer.centre[n]
        away = away / away.norm(dim=-1, keepdim=True)
        p = (away @ layer.gate_basis[n]).square().sum(-1)
        s = torch.sigmoid(layer.slope[n] * (p - layer.threshold[n]))
        inside = (x - layer.target_mean[n]) @ layer.update[n]
        f = layer.map_mean[n] + inside @ layer.map_basis[n].T
        better = s > best
        result = torch.where(better[..., None], torch.lerp(x, f, s[..., None]), result)
        best = torch.where(better, s, best)
    return result


def literal(layer: Layer, x: Tensor) -> Tensor:
    """The formula for all concepts at once, with everything in (B, N, T, D)."""
    away = x[:, None] - layer.centre[:, None]
    away = away / away.norm(dim=-1, keepdim=True)
    p = (away @ layer.gate_basis).square().sum(-1)
    s, winner = torch.sigmoid(layer.slope[:, None] * (p - layer.threshold[:, None])).max(1)
    del away
    inside = (x[:, None] - layer.target_mean[:, None]) @ layer.update
    f = layer.map_mean[:, None] + inside @ layer.map_basis.mT
    f = f.gather(1, winner[:, None, :, None].expand(-1, 1, -1, x.shape[-1])).squeeze(1)
    return torch.lerp(x, f, s[..., None])


class Held(TorchDispatchMode):
    """Counts the bytes of all storages that operations have made and that are still there, and the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        result = operation(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage(), given)
        return result

    def _count(self, storage: Any, given: set[int]) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in given or key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def peak(way: Callable[[], Tensor]) -> int:
    """The most bytes that tensors made on the way held at once."""
    with Held() as held:
        way()
    return held.most


@torch.no_grad()
def whole_unet(counts: Sequence[int], size: int, share: float, rounds: int) -> None:
    torch.manual_seed(0)
    unet = full_unet()
    holder = Holder(unet)
    sample, text = torch.randn(ROWS, 4, size, size), torch.randn(ROWS, 77, 768)
    print(
        f"U-Net of SD 1.5's size, {size} x {size} latents, {ROWS} rows, {share:.0%} of the tokens open, "
        f"{torch.get_num_threads()} threads"
    )
    for count in counts:
        patch, wiring = gated_patch(holder, count, share, lambda: unet(sample, 500, text)), Wiring(holder)
        plain, edited = [], []
        for _ in range(rounds):
            plain.append(seconds(lambda: unet(sample, 500, text)))
            wiring.set([patch])
            edited.append(seconds(lambda: unet(sample, 500, text)))
            wiring.clear()
        ratio = min(edited) / min(plain)
        print(f"N = {count:4}  plain {min(plain):.2f} s, with gates {min(edited):.2f} s, ratio {ratio:.3f}", flush=True)
        figure(
            f"GLoCE, {counted(count, 'concept')}: a U-Net call, to the plain one", f"{ratio:.3f}", AIMS.get(count, "")
        )


def gated_patch(holder: Holder, count: int, share: float, call: Callable[[], object]) -> Patch:
    """Random concepts at every cross-attention layer, open at a share of the tokens that the call shows."""
    patch, generator, features = Patch(holder), torch.Generator().manual_seed(0), dict[str, Tensor]()
    places = points(holder, "cross_attn.out")
    modules = {place.name: holder.unet.get_submodule(place.path) for place in places}
    hooks = [
        module.register_forward_hook(lambda module, given, x, name=name: features.update({name: x}))
        for name, module in modules.items()
    ]
    call()
    for hook in hooks:
        hook.remove()
    for place in places:
        x = features[place.name]
        layer = random_layer(count, x.shape[-1], x, share, generator)
        patch.output(place, GatedLayer(place.name, layer, [EVERYTHING] * count))
    return patch


if __name__ == "__main__":
    main()
