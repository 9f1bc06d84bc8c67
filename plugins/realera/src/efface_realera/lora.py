"""Both stages as one LoRA, for pipelines that know nothing of efface."""

from __future__ import annotations

import torch
from torch import Tensor

import efface
from efface.errors import BadArtifact

EXACT = 1e-7


def lora(model: efface.Model, erasure: efface.Erasure) -> dict[str, Tensor]:
    """A state dict for `pipe.load_lora_weights`, float32, for the pipeline that the erasure was made for.

    Each cross-attention key and value changes from W to (W + B A)(I + E), so its own change is W E + B A (I + E). Its
    rank is that of E and of the LoRA together, at most the layer's smaller side; nothing above float32's precision is
    left out. BadArtifact for an erasure of another method.
    """
    if erasure.method != "realera":
        raise BadArtifact(f"This is an erasure by {erasure.method}, not by realera")
    tensors = {name: tensor.double() for name, tensor in erasure.tensors.items()}
    mapped = tensors["map"] if "map" in tensors else tensors["up"] @ tensors["down"]
    state: dict[str, Tensor] = {}
    for point in model.points("cross_attn.k", "cross_attn.v"):
        weight = model.weight(point).to("cpu", torch.float64)
        change = weight @ mapped
        if f"{point.name}.up" in tensors:
            added = tensors[f"{point.name}.up"] @ tensors[f"{point.name}.down"]
            change += added + added @ mapped
        up, down = _factors(change)
        state |= {f"{point.name}.lora_B.weight": up.float(), f"{point.name}.lora_A.weight": down.float()}
    return state


def _factors(change: Tensor) -> tuple[Tensor, Tensor]:
    """up (m, r) and down (r, d) of least rank, balanced."""
    left, sigma, right = torch.linalg.svd(change, full_matrices=False)
    rank = max(1, int((sigma > EXACT * sigma[0]).sum()))
    root = sigma[:rank].sqrt()
    return (left[:, :rank] * root).contiguous(), (root[:, None] * right[:rank]).contiguous()
