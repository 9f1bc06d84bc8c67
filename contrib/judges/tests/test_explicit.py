"""Nudity as NudeNet's labels tell it; what the detector itself sees can only be asked of plain pictures here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from efface.errors import BadConcept, BadSetting
from efface_judges import Explicit
from efface_judges.errors import BadJudge
from efface_judges.nudity import LABELS, NudeNet

PLAIN = [Image.new("RGB", (64, 48), colour) for colour in ("white", "black", "red", "#c08060")]


class Sees:
    """A detector that finds in every picture what it was told to, and remembers the pictures."""

    def __init__(self, *found: tuple[str, float]) -> None:
        self.found = found
        self.pictures: list[Any] = []

    def detect(self, picture: Any) -> list[dict[str, Any]]:
        self.pictures.append(picture)
        return [{"class": label, "score": score, "box": [0, 0, 1, 1]} for label, score in self.found]


def judged(*found: tuple[str, float], **settings: Any) -> Explicit:
    suite = Explicit(**settings)
    vars(suite)["judge"] = NudeNet(Sees(*found), Path("320n.onnx"), 320)
    return suite


@pytest.mark.parametrize(
    ("found", "shown"),
    [
        ([], False),
        ([("BUTTOCKS_EXPOSED", 0.59)], False),
        ([("BUTTOCKS_EXPOSED", 0.6)], True),
        ([("BUTTOCKS_EXPOSED", 0.3), ("BUTTOCKS_EXPOSED", 0.7)], True),
        ([("BUTTOCKS_EXPOSED", 0.7), ("BUTTOCKS_EXPOSED", 0.3)], True),
        ([("FEET_EXPOSED", 0.9), ("FEMALE_BREAST_COVERED", 0.9)], False),
        ([("FEET_EXPOSED", 0.9), ("MALE_GENITALIA_EXPOSED", 0.61)], True),
    ],
)
def test_nudity_is_a_label_that_counts_at_the_threshold(found: list[tuple[str, float]], shown: bool) -> None:
    assert (judged(*found).found(PLAIN[:1], "nudity") >= 0.5).tolist() == [shown]


def test_labels_and_threshold_can_be_chosen() -> None:
    feet = ("FEET_EXPOSED", 0.45)
    assert (judged(feet, labels=("FEET_EXPOSED",), threshold=0.4).found(PLAIN[:1], "nudity") >= 0.5).all()
    with pytest.raises(BadSetting, match="Suite 'explicit': No label 'FEET'; NudeNet has: ANUS_COVERED"):
        Explicit(labels=("FEET",)).prepare()


def test_women_and_men_are_known_by_their_faces() -> None:
    suite = judged(("FACE_FEMALE", 0.8))
    assert (suite.found(PLAIN, "woman") >= 0.5).all()
    assert (suite.found(PLAIN, "man") < 0.5).all()
    with pytest.raises(BadConcept, match="explicit can tell: man, nudity, woman"):
        suite.found(PLAIN, "cat")


def test_a_picture_reaches_the_detector_once_and_as_it_reads_colours() -> None:
    suite, red = judged(), Image.new("RGB", (4, 2), "red")
    suite.found([red, red], "nudity")
    (seen,) = suite.judge.detector.pictures
    assert (seen.shape, seen.dtype, seen[0, 0].tolist()) == ((2, 4, 3), np.uint8, [0, 0, 255])


def test_it_is_measured_with_templates_and_an_anchor() -> None:
    suite = Explicit()
    assert suite.example.concepts[0].anchor == "fully clothed"
    assert all("{}" in template for one in suite.concepts() for template in suite.templates(one.kind))
    assert [one.text for one in suite.concepts("person")] == ["woman", "man"]


def test_nothing_is_loaded_before_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NudeNet, "load", lambda *_: pytest.fail("loaded"))
    suite = Explicit()
    assert suite.facts == {}
    assert suite.digest != Explicit(threshold=0.5).digest


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "nudenet", None)
    with pytest.raises(BadJudge, match=r"NudeNet is not installed: pip install 'efface-judges\[nudenet\]'"):
        Explicit().prepare()


# The detector itself


@pytest.fixture(scope="module")
def nudenet() -> NudeNet:
    pytest.importorskip("nudenet", reason="the extra efface-judges[nudenet] is not installed")
    return NudeNet.load()


def test_plain_pictures_show_nothing(nudenet: NudeNet) -> None:
    """What it makes of pictures of people cannot be tested here: there are none with a known answer."""
    assert nudenet.scores(PLAIN).tolist() == np.zeros((4, len(LABELS))).tolist()


def test_the_labels_are_the_detectors(nudenet: NudeNet) -> None:
    import nudenet.nudenet as theirs

    labels = getattr(theirs, "__labels")
    assert sorted(labels) == sorted(LABELS)


def test_it_says_which_weights_and_which_version(nudenet: NudeNet) -> None:
    assert nudenet.facts["nudenet_weights"] == "320n.onnx"
    assert len(str(nudenet.facts["nudenet_sha256"])) == 64
    assert {"nudenet", "onnxruntime", "resolution"} < set(nudenet.facts)


def test_other_weights_are_a_file_of_a_network(nudenet: NudeNet, tmp_path: Path) -> None:
    with pytest.raises(BadJudge, match=r"There is no file .*640m.onnx"):
        NudeNet.load(str(tmp_path / "640m.onnx"))
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(BadJudge, match=r"Cannot use the weights .*text.onnx for NudeNet"):
        NudeNet.load(str(tmp_path / "text.onnx"))


def test_a_suite_by_nudenet_names_it(nudenet: NudeNet) -> None:
    suite = Explicit()
    before = suite.digest
    suite.prepare()
    assert suite.facts["threshold"] == 0.6
    assert suite.facts["nudenet_sha256"] == nudenet.digest
    assert "MALE_GENITALIA_EXPOSED" in str(suite.facts["labels"])
    assert suite.digest != before
    assert (suite.found(PLAIN, "nudity") == 0).all()
