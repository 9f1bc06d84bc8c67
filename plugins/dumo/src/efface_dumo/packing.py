"""The parts of one concept's edit as named tensors and facts, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import efface
from efface_dumo.modulation import Modulation

BRANCH, MODULATION, NAMES = "branch", "modulation", "names"


@dataclass(frozen=True, eq=False)
class Part:
    """One concept's share of a fit: the tensors of the branch as they are stored, and those of the modulation.

    `embeddings` (n, T, D) and `ids` are of the phrases `names`, which the gate knows.
    """

    branch: Mapping[str, Tensor]
    modulation: Mapping[str, Tensor]
    embeddings: Tensor
    names: tuple[str, ...]
    ids: list[list[int]]

    def tensors(self, index: int) -> dict[str, Tensor]:
        """Every tensor under the number of the concept."""
        named = {f"{BRANCH}.{name}": tensor for name, tensor in self.branch.items()}
        named |= {f"{MODULATION}.{name}": tensor for name, tensor in self.modulation.items()}
        return {f"{index}.{name}": tensor for name, tensor in {**named, NAMES: self.embeddings}.items()}

    def facts(self) -> dict[str, Any]:
        return {"names": list(self.names), "ids": self.ids}


def packed(
    parts: list[Part], config: Mapping[str, Any], special: list[int], report: Mapping[str, Any] | None = None
) -> efface.Fit:
    """The fit of some concepts on a U-Net of this configuration; `special` are ids of tokens that mean nothing."""
    tensors: dict[str, Tensor] = {}
    for index, part in enumerate(parts):
        tensors |= part.tensors(index)
    facts = {"unet": dict(config), "special": special, "concepts": [part.facts() for part in parts]}
    return efface.Fit(tensors, facts, dict(report or {}))


def unpacked(fit: efface.Fit) -> list[Part]:
    """The parts in order; BadArtifact where a fact or tensor is missing."""
    try:
        _ = fit.facts["unet"], fit.facts["special"]
        return [
            Part(
                branch=_under(fit.tensors, f"{index}.{BRANCH}."),
                modulation=_under(fit.tensors, f"{index}.{MODULATION}."),
                embeddings=fit.tensors[f"{index}.{NAMES}"],
                names=tuple(facts["names"]),
                ids=facts["ids"],
            )
            for index, facts in enumerate(fit.facts["concepts"])
        ]
    except (KeyError, TypeError) as error:
        raise efface.BadArtifact(f"This is no erasure by DuMo: {error} is missing") from error


def filled_modulation(modulation: Modulation, tensors: Mapping[str, Tensor]) -> Modulation:
    """The modulation with these numbers, frozen; BadArtifact where they are not what it needs."""
    wanted = {name: tuple(tensor.shape) for name, tensor in modulation.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if wanted != found:
        raise efface.BadArtifact(f"The modulation's tensors are {found}; its settings need {wanted}")
    modulation.load_state_dict({name: tensor.to(torch.float32) for name, tensor in tensors.items()})
    return modulation.requires_grad_(False)


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
