"""ErasePro keeps what efface promises of every method."""

from typing import ClassVar

from efface.testing import MethodTests


class TestErasePro(MethodTests):
    plugin = "efface_erasepro"
    method = "erasepro"
    settings: ClassVar = {"templates": 2}
    seeded = True
    fuses = True


class TestGatedErasePro(MethodTests):
    """Only prompts that name a target are edited: another edit, by another verb, at the text alone."""

    plugin = "efface_erasepro"
    method = "erasepro"
    settings: ClassVar = {"templates": 2, "gated": True}
    merges = True
    expected_failures: ClassVar = {"test_covers_is_true": "covers speaks of the default; gated touches the text alone"}
