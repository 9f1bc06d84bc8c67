"""UCE keeps what efface promises of every method."""

from efface.testing import MethodTests


class TestUCE(MethodTests):
    plugin = "efface_uce"
    method = "uce"
    checkpoints = True
    fuses = True
