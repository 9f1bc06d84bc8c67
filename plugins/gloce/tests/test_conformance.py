"""GLoCE keeps what efface promises of every method."""

from typing import ClassVar

from efface.testing import MethodTests


class TestGLoCE(MethodTests):
    plugin = "efface_gloce"
    method = "gloce"
    settings: ClassVar = {"steps": 5, "seeds": 1, "boundary": ("fish",), "target_rank": 4, "tau": 0.5}
    seeded = True
    checkpoints = True
    merges = True
