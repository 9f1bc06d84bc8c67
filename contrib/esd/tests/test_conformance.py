"""ESD keeps what efface promises of every method."""

from typing import ClassVar

from efface.testing import MethodTests

QUICK = {"steps": 3, "rate": 0.01, "sampling": 1, "trajectories": 1, "renew": 2, "batch": 1, "checkpoint": 1}


class TestCrossAttention(MethodTests):
    plugin = "efface_esd"
    method = "esd"
    settings: ClassVar = QUICK
    seeded = True
    checkpoints = True
    fuses = True
    expected_failures: ClassVar = {"test_covers_is_true": "covers names the layers of every choice; x trains some"}


class TestFull(TestCrossAttention):
    settings: ClassVar = QUICK | {"layers": "full"}
    expected_failures: ClassVar = {}
