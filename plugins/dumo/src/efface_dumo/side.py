"""The branch at work: what one concept adds to the decoder's inputs in a pass."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

import efface
from efface_dumo.branch import Branch
from efface_dumo.gate import Gate
from efface_dumo.modulation import Modulation, joined
from efface_dumo.skeleton import fill
from efface_dumo.storage import Stored


@dataclass(frozen=True, eq=False)
class Side:
    """A concept's branch, modulation and gate; the branch is put on a device when the first pass there needs it.

    `empty` is a branch of shapes alone, `stored` has its numbers.
    """

    empty: Branch
    stored: Stored
    modulation: Modulation
    gate: Gate
    silent_bins: Sequence[bool]
    placed: dict[tuple[torch.device, torch.dtype], tuple[Branch, Modulation]] = field(default_factory=dict)

    def edited(self, feature: Tensor, call: efface.Call, *, layer: int) -> Tensor:
        """The skip connection, or the mid output, with this concept's share added."""
        if self not in call.memo:
            call.memo[self] = self.outputs(call)
        if call.memo[self] is None:
            return feature
        outputs, weights, strengths = call.memo[self]
        return joined(feature, outputs[layer], weights[:, layer], self.modulation.kind, strengths)

    def outputs(self, call: efface.Call) -> tuple[tuple[Tensor, ...], Tensor, Tensor | None] | None:
        """One pass of the branch: outputs of all layers, Lambda (B, L) and m (B,); None where nothing acts."""
        strengths, closed = call.per_prompt(self.opening)
        if closed or self.is_silent(call):
            return None
        branch, modulation = self.at(call.sample.device, call.sample.dtype)
        text = call.text.to(call.sample.dtype)
        made = branch(call.sample, call.timestep, text, call.added or None)
        return made.layers, modulation(call.timestep, call.num_train_timesteps, made.time), strengths

    def opening(self, call: efface.Call) -> tuple[Tensor | None, bool]:
        """m for every row, and whether it is 0 throughout: found out once for each prompt, on the host."""
        strengths = self.gate.strengths(call)
        return strengths, strengths is not None and not bool(strengths.any())

    def is_silent(self, call: efface.Call) -> bool:
        """Whether every row's bin has zeros only.

        Only a table that has such a row is looked at. On another device than the CPU that waits for the timestep,
        which takes far less time than the pass of the branch that it may save.
        """
        if not self.silent_bins:
            return False
        bins = self.modulation.bin_of(call.timestep, call.num_train_timesteps)
        return all(self.silent_bins[found] for found in bins.tolist())

    def at(self, device: torch.device, dtype: torch.dtype) -> tuple[Branch, Modulation]:
        """Branch and modulation on a device; the table keeps its precision."""
        if (device, dtype) not in self.placed:
            branch = copy.deepcopy(self.empty)
            fill(branch, self.stored.tensors(device, dtype))
            self.placed[device, dtype] = branch, copy.deepcopy(self.modulation).to(device)
        return self.placed[device, dtype]
