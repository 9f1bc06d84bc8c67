"""From a fit back to branches that can run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import efface
from efface_dumo.branch import ENCODER, Branch
from efface_dumo.gate import Gate
from efface_dumo.modulation import Modulation, groups_of
from efface_dumo.packing import Part, filled_modulation, unpacked
from efface_dumo.side import Side
from efface_dumo.skeleton import base_tensors
from efface_dumo.storage import Stored

if TYPE_CHECKING:
    from efface_dumo.dumo import DuMo


def sides(settings: DuMo, patch: efface.Patch, fitted: efface.Fitted) -> Iterator[Side]:
    """Each concept's branch, modulation and gate, checked against what the U-Net's configuration asks for."""
    parts, special = unpacked(fitted.fit), frozenset(fitted.fit.facts["special"])
    branch = Branch(fitted.fit.facts["unet"], settings.table != "blend")
    layers = len([point for point in patch.points if point.kind in ("skip", "mid")])
    for part in parts:
        stored = stored_branch(part, branch, patch.pipe)
        modulation = filled_modulation(_modulation(settings, branch, layers), part.modulation)
        yield Side(
            empty=branch,
            stored=stored,
            modulation=modulation,
            gate=Gate(settings.gate, settings.gate_factor, settings.gate_threshold, part.embeddings, part.ids, special),
            silent_bins=modulation.silent_bins(layers if settings.mid else layers - 1),
        )


def stored_branch(part: Part, branch: Branch, pipe: Any) -> Stored:
    """A part's stored branch, with the base encoder of the pipeline where it is kept as differences from that.

    Raises BadArtifact for tensors that do not fit the branch's shapes.
    """
    stored = Stored(part.branch)
    if stored.needs_base:
        if pipe is None:
            raise efface.EffaceError("This branch is stored as differences from its base: give the pipeline (pipe=...)")
        base = base_tensors(pipe.unet, list(branch.encoder.state_dict()))
        stored = Stored(part.branch, {f"{ENCODER}.{name}": tensor for name, tensor in base.items()})
    stored.check(branch)
    return stored


def _modulation(settings: DuMo, branch: Branch, layers: int) -> Modulation:
    return new_modulation(settings, layers, branch.encoder.time_embedding.linear_2.out_features)


def new_modulation(settings: DuMo, layers: int, time_width: int) -> Modulation:
    """An untrained modulation for a U-Net with so many layers; BadSetting if the layer groups do not fit it."""
    return Modulation(settings.table, settings.bins, groups_of(settings.layer_groups, layers), time_width)
