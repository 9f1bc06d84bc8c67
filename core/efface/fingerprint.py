"""The base a fit was made for: enough of its weights to recognise it, in a few numbers per tensor."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from efface.errors import WrongBase
from efface.weights import weight_of
from efface_hooks import HookPoint
from efface_hooks.point import TEXT_ENCODERS, component, text_readers

PROJECTIONS = 8
TOLERANCE = 1e-3
BFLOAT16_TOLERANCE = 1e-2
FOLD = 4096
CHUNK = 128
QUIET = 1e-4
# What adapters (LoRA, IP-Adapter) and `fuse_qkv_projections` put into a model beside its own weights.
_ADDED = re.compile(r"(^|\.)(lora_\w+|processor|image_projection_layers|to_(added_)?q?kv)(\.|$)")

Sketches = dict[str, list[float]]


def fingerprint(pipe: Any, points: Iterable[HookPoint], sketches: Sketches | None = None) -> dict[str, Any]:
    """What identifies the base under an erasure that touches these points.

    `structure`: sha256 over names and shapes of the tensors concerned. `weights`: for each of them eight seeded +-1
    projections divided by its norm, in float64, adapters left out. `dtype`: the U-Net's. `sketches` has the ones that
    were made a moment ago, and takes up those made here.
    """
    made = {} if sketches is None else sketches
    tensors = dict(_concerned(pipe, list(points)))
    return {
        "pipeline": type(pipe).__name__,
        "dtype": _dtype(component(pipe, "unet")),
        "structure": _structure(tensors),
        "weights": {name: made.get(name) or made.setdefault(name, sketch(name, t)) for name, t in tensors.items()},
    }


@dataclass(frozen=True)
class Likeness:
    """The largest difference between the sketches of two models, and how much of it a cast may account for."""

    difference: float
    allowed: float

    @property
    def same(self) -> bool:
        return self.difference <= self.allowed


def check(
    base: Mapping[str, Any],
    pipe: Any,
    points: Iterable[HookPoint],
    allow_other: bool = False,
    sketches: Sketches | None = None,
) -> Likeness:
    """How far this pipeline is from a fingerprint; WrongBase when it is another model.

    Casts to float16 stay within 1e-3 and casts to bfloat16 within 1e-2. Another structure is never allowed.
    """
    return compare(base, fingerprint(pipe, points, sketches), allow_other)


def compare(base: Mapping[str, Any], found: Mapping[str, Any], allow_other: bool = False) -> Likeness:
    """How far one fingerprint is from another of the same points; WrongBase as `check` raises it."""
    if found["structure"] != base.get("structure"):
        raise WrongBase(
            f"This erasure was made for a {base.get('pipeline')} of another structure: names or shapes of its "
            f"{len(base.get('weights', {}))} tensors differ from those of this {found['pipeline']}"
        )
    tolerance = BFLOAT16_TOLERANCE if "bfloat16" in (base.get("dtype"), found["dtype"]) else TOLERANCE
    likeness = Likeness(_difference(base["weights"], found["weights"]), tolerance)
    if not likeness.same and not allow_other:
        worst = max(found["weights"], key=lambda name: _gap(base["weights"][name], found["weights"][name]))
        raise WrongBase(
            f"This erasure was made for other weights: they differ by {likeness.difference:.2g} (most in {worst}; "
            f"allowed {tolerance:g}). Fit it on this model, or allow it (allow_other_base=True, --allow-other-base)"
        )
    return likeness


def sketch(name: str, tensor: Tensor) -> list[float]:
    """Eight +-1 projections of a tensor over its norm, (8,): nearly equal for a cast, of size 1 apart otherwise.

    The signs are an outer product of two seeded vectors, over the tensor folded into rows of at most 4,096. A tensor
    whose numbers are below 1e-4, such as a key's bias that training hardly moved, counts for as little: float16 does
    not hold them well.
    """
    flat = _plain(tensor.detach()).reshape(-1)
    fold = max(1, min(FOLD, len(flat)))
    generator = torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(name.encode()).digest()[:6]))
    across = _signs((fold, PROJECTIONS), generator)
    total, square = torch.zeros(PROJECTIONS, dtype=torch.float64), 0.0
    for piece in torch.split(flat, CHUNK * FOLD):  # pieces that stay in the cache in float64
        exact = piece.to("cpu", torch.float64)
        rows = nn.functional.pad(exact, (0, -len(exact) % fold)).view(-1, fold)
        total += ((rows @ across) * _signs((len(rows), PROJECTIONS), generator)).sum(0)
        square += float(exact @ exact)
    norm = max(square, len(flat) * QUIET**2) ** 0.5
    return [round(value, 6) for value in (total / norm).tolist()] if norm else [0.0] * PROJECTIONS


def _plain(tensor: Tensor) -> Tensor:
    """The numbers of a tensor that a quantising library keeps in a class of its own."""
    return tensor if type(tensor) is Tensor else tensor.dequantize()


def _signs(shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    return torch.randint(0, 2, shape, generator=generator).double() * 2 - 1


def _concerned(pipe: Any, points: list[HookPoint]) -> Iterator[tuple[str, Tensor]]:
    """Named tensors that a fit at these points depends on.

    A change of the text path depends on the text encoders and the projections that read the text. Whatever acts on
    features inside the U-Net was fitted on activations, which depend on everything.
    """
    unet = component(pipe, "unet")
    only_text = all(point.kind == "text" or point.component in TEXT_ENCODERS for point in points)
    readers = {f"unet.{path}" for path in text_readers(unet)}
    for name, tensor in sorted(weights(pipe)):
        if not name.startswith("unet.") or not only_text or name.removesuffix(".weight") in readers:
            yield name, tensor


def weights(pipe: Any) -> Iterator[tuple[str, Tensor]]:
    """Every weight of the U-Net and the text encoders by its public name, adapters left out."""
    for part in (*TEXT_ENCODERS, "unet"):
        if isinstance(getattr(pipe, part, None), nn.Module):
            for path, module in component(pipe, part).named_modules():
                for name, _ in module.named_parameters(prefix=path, recurse=False):
                    if not _ADDED.search(name):
                        yield f"{part}.{_public(name)}", weight_of(module, name.rpartition(".")[2])


def _dtype(unet: Any) -> str:
    """The dtype of a U-Net; bfloat16 if some weights are kept in it, as under layerwise casting."""
    kept = {weight.dtype for weight in unet.parameters()}
    return str(torch.bfloat16 if torch.bfloat16 in kept else unet.dtype).removeprefix("torch.")


def _public(name: str) -> str:
    """A parameter's name without what adapters and older transformers versions put into it."""
    return name.replace(".base_layer.", ".").removeprefix("text_model.")


def _structure(tensors: Mapping[str, Tensor]) -> str:
    lines = "\n".join(f"{name} {tuple(tensor.shape)}" for name, tensor in sorted(tensors.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _difference(one: Mapping[str, list[float]], other: Mapping[str, list[float]]) -> float:
    return max((_gap(one[name], other[name]) for name in other), default=0.0)


def _gap(one: list[float], other: list[float]) -> float:
    return max(abs(a - b) if math.isfinite(b) else math.inf for a, b in zip(one, other, strict=True))
