"""Controls: bad erasures that every table has to show as bad."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from efface.errors import EffaceError, unknown
from efface.insisting import insist
from efface_hooks import Call, Patch, Wiring


def noise(patch: Patch) -> None:
    """Every cross-attention gives noise as strong as its output was."""
    for point in patch.points:
        if point.kind == "cross_attn.out":
            patch.output(point, partial(as_noise, place=point.name))


def blank(patch: Patch) -> None:
    """Every prompt's embedding is zero: the concept is gone, and so is everything else."""
    patch.output("unet.text", zeroed)


CONTROLS: Mapping[str, Callable[[Patch], None]] = MappingProxyType({"noise": noise, "blank": blank})


@contextmanager
def control(pipe: Any, name: str) -> Iterator[None]:
    """A control on the pipeline, whose U-Net nobody else edits, while the context is open."""
    check_control(name)
    patch = Patch(pipe)
    CONTROLS[name](patch)
    wiring = Wiring(pipe)
    try:
        wiring.set([patch])
        yield
    finally:
        insist(wiring.clear)


def check_control(name: str) -> None:
    """EffaceError for a name that is no control's."""
    if name not in CONTROLS:
        raise EffaceError(unknown("control", name, CONTROLS, "there are"))


def as_noise(x: Tensor, call: Call, *, place: str) -> Tensor:
    """Noise with the standard deviation of each row of x (B, T, D); the same for the same latents at the same place."""
    return _noise(x, f"{place} {_seed(call)}") * x.std(dim=(1, 2), keepdim=True)


def zeroed(x: Tensor, _call: Call) -> Tensor:
    return torch.zeros_like(x)


def _noise(x: Tensor, stream: str) -> Tensor:
    seed = int.from_bytes(hashlib.sha256(stream.encode()).digest()[:8])
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)).to(x)


def _seed(call: Call) -> str:
    """A digest of the latents and the time, taken once in a pass."""
    if as_noise not in call.memo:
        digest = hashlib.sha256(call.sample.detach().cpu().double().numpy().tobytes())
        digest.update(call.timestep.detach().cpu().double().numpy().tobytes())
        call.memo[as_noise] = digest.hexdigest()
    found: str = call.memo[as_noise]
    return found
