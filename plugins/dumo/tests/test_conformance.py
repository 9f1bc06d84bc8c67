"""DuMo keeps what efface promises of every method."""

from typing import ClassVar

from efface.testing import MethodTests


class TestDuMo(MethodTests):
    plugin = "efface_dumo"
    method = "dumo"
    settings: ClassVar = {
        "steps": 2,
        "batch": 1,
        "rate": 1e-2,
        "trajectories": 1,
        "sample_steps": 2,
        "table_steps": 1,
        "table_cache": 2,
        "checkpoint_every": 1,
    }
    seeded = True
    checkpoints = True
