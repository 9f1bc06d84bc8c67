"""Work that is killed at a random moment goes on to the same files: two rounds of `benchmarks/kills.py`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "kills.py"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the script forks the processes that it kills")
def test_a_mass_fit_and_a_save_end_with_the_same_files_after_a_kill() -> None:
    chosen = ["--rounds", "2", "--only", "mass fit by UCE", "--only", "save"]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *chosen],
        env=os.environ | {"OMP_NUM_THREADS": "1", "EFFACE_DISABLE_PLUGINS": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    heads, *lines = done.stdout.splitlines()
    assert heads.split() == ["seconds", "files", "rounds", "killed", "half", "files", "same", "files"]
    counts = {name: found for name, *found in (line.rsplit(maxsplit=6) for line in lines)}
    assert [(name, found[2], found[-1]) for name, found in counts.items()] == [
        ("mass fit by UCE", "2", "2"),
        ("save", "2", "2"),
    ]
    assert sum(int(found[3]) for found in counts.values()) > 0, "none was killed in time"
