"""A CLIP model that reads the ten words of CIFAR-10 off pictures."""

from __future__ import annotations

from pathlib import Path

import pytest

from efface_judges.clip import Clip
from efface_judges.objects import OBJECTS
from efface_judges.testing import save_reading_clip

WORDS = [one.text for one in OBJECTS]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "reading-clip"
    save_reading_clip(path, WORDS)
    return path


@pytest.fixture(scope="session")
def clip(folder: Path) -> Clip:
    return Clip.load(folder)
