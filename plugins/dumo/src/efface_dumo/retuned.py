"""An erasure with its gate set otherwise: nothing has to be trained again for that."""

from __future__ import annotations

from dataclasses import replace

import efface
from efface.settings import as_dict, build
from efface_dumo.dumo import DuMo

GATE = ("gate", "gate_factor", "gate_threshold")


def retuned(erasure: efface.Erasure, **settings: object) -> efface.Erasure:
    """The same branch and table behind another gate; BadSetting for a setting that belongs to the training."""
    for name in settings:
        if name not in GATE:
            raise efface.BadSetting(f"{name!r} cannot be set after the fit; these can: {', '.join(GATE)}")
    method = build(DuMo, {**erasure.header.settings, **settings})
    return efface.Erasure(replace(erasure.header, settings=as_dict(method)), erasure.tensors)
