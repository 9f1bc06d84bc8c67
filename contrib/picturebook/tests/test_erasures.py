"""The fitted erasures that come with the pipeline belong to its weights and to the suite's example."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import efface
import efface_picturebook
from efface.fingerprint import check
from efface.report.example import unseen
from efface.report.shipped import Shipped
from efface_picturebook.suite import PicturebookSuite

FOLDER = efface_picturebook.erasures()
FILES = sorted(FOLDER.glob("*.safetensors"))
MEBIBYTE = 2**20


@pytest.fixture(scope="module")
def pipe() -> Any:
    return efface.load("picturebook")


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    return found


def test_its_base_is_the_pipeline(pipe: Any, path: Path) -> None:
    header = efface.Erasure.load(path).header
    points = {point.name: point for point in efface.points(pipe)}
    check(header.base, pipe, [points[name] for name in header.points])


def test_other_weights_are_not_its_base(pipe: Any, path: Path) -> None:
    header = efface.Erasure.load(path).header
    points = {point.name: point for point in efface.points(pipe)}
    weight = pipe.unet.conv_in.weight
    before = weight.data
    weight.data = before.roll(1, 0)
    try:
        with pytest.raises(efface.WrongBase):
            check(header.base, pipe, [points[name] for name in header.points])
    finally:
        weight.data = before


def test_it_is_what_the_method_would_fit_for_the_example(pipe: Any, path: Path) -> None:
    erasure, registry = efface.Erasure.load(path), efface.Registry.installed()
    if erasure.method not in registry.methods():
        pytest.skip(f"{erasure.header.distribution} is not installed")
    suite = PicturebookSuite()
    settings = unseen(suite, registry.method(erasure.method))
    found = Shipped.of(pipe, "picturebook", registry).find(erasure.method, suite.example, settings)
    assert found.file is not None, found.why
    assert (found.file.name, found.file.erasure.header.seed) == (path.name, 0)


def test_it_is_small_named_by_what_it_does_and_its_making_is_written_down(path: Path) -> None:
    erasure = efface.Erasure.load(path)
    assert path.stat().st_size < 3.5 * MEBIBYTE
    assert path.stem == f"{erasure.method}-{erasure.concepts[0].text}"
    assert f"`{path.name}`" in (FOLDER / "README.md").read_text()
