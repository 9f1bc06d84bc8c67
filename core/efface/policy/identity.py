"""Which model this is, to the last bit of its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from efface.fingerprint import weights

DTYPES = ("float32", "float16", "bfloat16")


def digests(pipe: Any, dtypes: Iterable[str] = DTYPES) -> dict[str, dict[str, str]]:
    """For each precision and each component that a prompt passes through, sha256 over its weights in that precision.

    Adapters are left out. The weights that a model has in a narrower precision are the casts of its own, so one file
    can be recognised in all of them.
    """
    return {dtype: {name: _digest(found, dtype) for name, found in _components(pipe).items()} for dtype in dtypes}


def precisions(pipe: Any) -> dict[str, str]:
    """The precision of each component; "mixed" where its weights have several."""
    each = {name: {str(tensor.dtype) for _, tensor in found} for name, found in _components(pipe).items()}
    return {
        name: next(iter(found)).removeprefix("torch.") if len(found) == 1 else "mixed" for name, found in each.items()
    }


def _components(pipe: Any) -> dict[str, list[tuple[str, Tensor]]]:
    found: dict[str, list[tuple[str, Tensor]]] = {}
    for name, tensor in sorted(weights(pipe), key=lambda pair: pair[0]):
        found.setdefault(name.partition(".")[0], []).append((name, tensor))
    return found


def _digest(found: Iterable[tuple[str, Tensor]], dtype: str) -> str:
    digest = hashlib.sha256()
    for name, tensor in found:
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        cast = tensor.detach().to("cpu", getattr(torch, dtype)).contiguous()
        digest.update(cast.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
