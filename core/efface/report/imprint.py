"""The proof that a pipeline is what it was: a picture made again, and every weight."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from efface.report.sampling import Sampling


@dataclass(frozen=True)
class Imprint:
    """sha256 of the pixels of one picture, and of all parameters and buffers of a pipeline."""

    picture: str
    weights: str

    @classmethod
    def of(cls, pipe: Any, sampling: Sampling) -> Imprint:
        image = sampling.probe(pipe)
        return cls(_sha256(f"{image.mode} {image.size}".encode(), image.tobytes()), weights_digest(pipe))


@dataclass(frozen=True)
class Detached:
    """What an imprint after detaching says against the one from before."""

    same_picture: bool
    same_weights: bool
    weights: str

    @classmethod
    def compared(cls, before: Imprint, after: Imprint) -> Detached:
        return cls(before.picture == after.picture, before.weights == after.weights, after.weights)

    @property
    def identical(self) -> bool:
        return self.same_picture and self.same_weights

    def to_json(self) -> dict[str, Any]:
        return {
            "bit_identical": self.identical,
            "picture_identical": self.same_picture,
            "weights_identical": self.same_weights,
            "weights_sha256": self.weights,
        }


def weights_digest(pipe: Any) -> str:
    """sha256 over names, shapes, dtypes and bytes of every parameter and buffer of the pipeline's networks."""
    digest = hashlib.sha256()
    for part, module in sorted(pipe.components.items()):
        if isinstance(module, nn.Module):
            for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
                digest.update(f"{part}.{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
                digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _sha256(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()
