"""The frozen U-Net with the branch beside it, as training runs them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from efface_dumo.branch import Branch
from efface_dumo.conditions import Conditions
from efface_dumo.halves import Features, decoded, encoded
from efface_dumo.modulation import Modulation, joined


@dataclass(frozen=True)
class Student:
    """A U-Net, a branch and a modulation; `evaluations` counts the rows that went through each part.

    `mid` says whether the mid output is modulated too, `train_timesteps` how long the noise schedule is.
    """

    unet: Any
    branch: Branch
    modulation: Modulation
    mid: bool
    train_timesteps: int
    evaluations: Counter[str]

    @torch.no_grad()
    def features(self, sample: Tensor, timestep: Tensor, conditions: Conditions) -> Features:
        """What the frozen encoder makes: the prior of teacher and student alike."""
        self.evaluations["encoder"] += len(sample)
        return encoded(self.unet, sample, timestep, conditions.text, conditions.added(sample))

    def outputs(self, sample: Tensor, timestep: Tensor, conditions: Conditions) -> Features:
        """What the branch makes of the same."""
        self.evaluations["branch"] += len(sample)
        made: Features = self.branch(sample, timestep, conditions.text, conditions.added(sample))
        return made

    def changed(self, features: Features, outputs: Features, timestep: Tensor) -> Features:
        """The features with the branch's modulated outputs joined on."""
        weights = self.modulation(timestep, self.train_timesteps, outputs.time)
        layers = list(features.layers)
        for layer in range(len(layers) if self.mid else len(layers) - 1):
            layers[layer] = joined(layers[layer], outputs.layers[layer], weights[:, layer], self.modulation.kind)
        return features.with_layers(layers)

    def decoded(self, features: Features) -> Tensor:
        """The frozen decoder's prediction."""
        self.evaluations["decoder"] += len(features.time)
        return decoded(self.unet, features)

    @torch.no_grad()
    def plain(self, sample: Tensor, timestep: Tensor, conditions: Conditions) -> Tensor:
        """The base model's prediction."""
        return self.decoded(self.features(sample, timestep, conditions))

    @torch.no_grad()
    def edited(self, sample: Tensor, timestep: Tensor, conditions: Conditions) -> Tensor:
        """The edited model's prediction."""
        features = self.features(sample, timestep, conditions)
        return self.decoded(self.changed(features, self.outputs(sample, timestep, conditions), timestep))
