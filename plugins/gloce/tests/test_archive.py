"""Statistics in a folder: collected once, found again only under the same circumstances."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import efface
from efface.testing import tiny_pipeline
from efface.writing import write
from efface_gloce import archive
from efface_gloce.collector import Collector

Fit = Callable[..., efface.Erasure]
Calls = Callable[[], tuple[int, int]]


def test_statistics_in_a_folder_are_collected_once(
    pipe: Any, quick: Fit, calls: Calls, tmp_path: Path, cat: efface.Erasure
) -> None:
    quick(pipe, folder=tmp_path)
    assert calls()[1] == 2 * 4 * 2
    assert quick(pipe, folder=tmp_path) == cat
    assert calls() == (0, 0)
    quick(pipe, "house", folder=tmp_path)
    assert calls()[1] == 2 * 2 * 2
    assert sorted({path.name.split("-")[1] for path in tmp_path.iterdir()}) == ["moments", "peaks"]


def test_other_circumstances_find_nothing_in_the_folder(pipe: Any, quick: Fit, calls: Calls, tmp_path: Path) -> None:
    quick(pipe, folder=tmp_path)
    for options in ({"seed": 1}, {"settings": {"guidance": 3.0}}, {"settings": {"width": 32}}, {"pipe": 1}):
        calls()
        changed = tiny_pipeline("sd1", seed=options.pop("pipe", 0))
        quick(changed, folder=tmp_path, **options)
        assert calls()[1] == 2 * 4 * 2
    quick(pipe, folder=tmp_path, settings={"tau": 1.0})
    assert calls() == (0, 0)


def test_a_fit_that_was_interrupted_goes_on_to_the_same_result(
    pipe: Any, quick: Fit, calls: Calls, tmp_path: Path, cat: efface.Erasure
) -> None:
    def stop(done: int, total: int, what: str) -> None:
        if what.startswith("thresholds"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quick(pipe, folder=tmp_path, progress=stop)
    calls()
    assert quick(pipe, folder=tmp_path) == cat
    assert calls()[1] == 2 * 2


def test_a_damaged_file_is_collected_again(
    pipe: Any, quick: Fit, calls: Calls, tmp_path: Path, cat: efface.Erasure
) -> None:
    quick(pipe, folder=tmp_path)
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:100])
    calls()
    assert quick(pipe, folder=tmp_path) == cat
    assert calls()[1] == 2 * 4 * 2


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What has run together so far."""
    found: list[tuple[Any, ...]] = []
    plain = Collector._denoised

    def noted(own: Collector, batch: Any, listener: Any) -> Any:
        found.append(tuple(batch))
        return plain(own, batch, listener)

    monkeypatch.setattr(Collector, "_denoised", noted)
    return found


@pytest.mark.parametrize("writes", range(1, 6))
def test_a_fit_that_was_killed_between_two_files_runs_the_same_batches_again(
    pipe: Any, quick: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batches: list[tuple[Any, ...]], writes: int
) -> None:
    """In other batches the last digits might be others."""
    left = writes

    def stopping(path: Path, content: bytes) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        write(path, content)

    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    whole = quick(pipe, folder=tmp_path / "whole")
    undisturbed = set(batches)
    monkeypatch.setattr(archive, "write", stopping)
    with pytest.raises(KeyboardInterrupt):
        quick(pipe, folder=tmp_path / "broken")
    monkeypatch.setattr(archive, "write", write)
    batches.clear()
    assert quick(pipe, folder=tmp_path / "broken") == whole
    assert batches
    assert set(batches) <= undisturbed
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
