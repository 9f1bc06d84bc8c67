"""A file is there whole or not at all, and what a killed process left behind goes with the next one that is written."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from efface import CannotSave
from efface.writing import beside, write

KILLED = """
import os, signal, sys
from pathlib import Path

from efface.writing import write

os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)
write(Path(sys.argv[1]), b"new")
"""

kills = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="nothing kills a process at once here")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_and_written_over(tmp_path: Path) -> None:
    write(tmp_path / "deep" / "file", b"one", make_folder=True)
    write(tmp_path / "deep" / "file", b"two")
    assert (names(tmp_path / "deep"), (tmp_path / "deep" / "file").read_bytes()) == (["file"], b"two")


@kills
def test_a_killed_process_leaves_the_old_file_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    write(tmp_path / "file", b"old")
    died = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "file")])
    assert died.returncode == -signal.SIGKILL
    assert (tmp_path / "file").read_bytes() == b"old"
    assert len(names(tmp_path)) == 2
    write(tmp_path / "another", b"")
    assert names(tmp_path) == ["another", "file"]


@kills
def test_what_a_living_process_is_writing_stays(tmp_path: Path) -> None:
    with beside(tmp_path / "folder", Path.mkdir) as partial:
        (partial / "half").touch()
        write(tmp_path / "file", b"")
        assert names(tmp_path) == sorted([partial.name, "file"])
        os.replace(partial, tmp_path / "folder")
    assert names(tmp_path) == ["file", "folder"]


@kills
def test_what_is_taken_for_left_behind_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []

    def make(path: Path) -> None:
        path.touch()
        made.append(path)
        if len(made) == 1:
            path.unlink()

    def lock(file: int, how: int) -> None:
        if len(made) == 2:
            made[1].unlink()
        flock(file, how)

    fcntl = importlib.import_module("fcntl")
    flock = fcntl.flock
    monkeypatch.setattr(fcntl, "flock", lock)
    with beside(tmp_path / "file", make) as partial:
        assert (len(made), partial) == (3, made[2])
        assert partial.is_file()
    assert names(tmp_path) == []


def test_other_files_are_nobody_elses_business(tmp_path: Path) -> None:
    others = [".efface-old.partial", "efface-0123456789abcdef.partial", ".efface-0123456789abcdef.partial.txt"]
    for name in others:
        (tmp_path / name).touch()
    write(tmp_path / "file", b"")
    assert names(tmp_path) == sorted([*others, "file"])


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CannotSave, match="No space left on device"):
        write(tmp_path / "file", b"x")
    assert names(tmp_path) == []
