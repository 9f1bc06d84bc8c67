"""RealEra keeps what efface promises of every method."""

from typing import ClassVar

from efface.testing import MethodTests


class TestRealEra(MethodTests):
    plugin = "efface_realera"
    method = "realera"
    settings: ClassVar = {
        "bank": ("kitten", "fish", "house"),
        "s_lo": -0.38,
        "s_beyond": -0.38,
        "steps": 3,
        "rate": 1e-2,
        "trajectories": 2,
        "times": 2,
        "denoising_steps": 2,
        "refreshes": 0,
    }
    seeded = True
    checkpoints = True
    fuses = True
