"""AdaVD keeps what efface promises of every method."""

from typing import ClassVar

from efface.testing import MethodTests

LENIENT = {"slope": 5.0, "middle": 0.0}  # in a random model no two prompts have values as similar as in a trained one


class TestAdaVD(MethodTests):
    plugin = "efface_adavd"
    method = "adavd"
    settings: ClassVar = LENIENT


class TestPaper(MethodTests):
    plugin = "efface_adavd"
    method = "adavd"
    settings: ClassVar = LENIENT | {"tokens": "subject", "relative": False, "most": 2.0}


class TestAnchored(MethodTests):
    plugin = "efface_adavd"
    method = "adavd"
    settings: ClassVar = LENIENT | {"towards": "anchor"}
