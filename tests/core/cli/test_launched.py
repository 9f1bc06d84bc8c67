"""Two processes under `accelerate launch` give the files that one gives, and an error is told once."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result

Run = Callable[..., Result]

HALVES = """
import os
import signal
from dataclasses import dataclass
from typing import ClassVar

import efface


@dataclass(frozen=True)
class Half:
    '''Fails in the second process, or kills it.'''

    name: ClassVar[str] = "half"
    splits: ClassVar[bool] = True
    kills: bool = efface.setting(False, help="whether it kills")

    def fit(self, model, request, run):
        def compute(item):
            if item == 3 and self.kills:
                os.kill(os.getpid(), signal.SIGKILL)
            if item == 3:
                raise efface.EffaceError("no luck")

        list(run.processes.each(range(9), compute))

    def apply(self, patch, fits):
        pass


@efface.hookimpl
def efface_methods():
    return [Half]
"""

BOTH = """
import json
import os
import sys

from efface.cli.group import efface

left = []
for arguments in json.loads(sys.argv[1]):
    sys.stdout.flush()
    sys.stdout = sys.__stdout__ = open(f"said-{os.environ['RANK']}-{len(left)}", "w")
    sys.stderr = sys.__stderr__ = open(f"told-{os.environ['RANK']}-{len(left)}", "w")
    try:
        efface(arguments, prog_name="efface")
    except SystemExit as end:
        left.append(end.code)
    sys.stdout.flush()
    sys.stderr.flush()
    with open(f"left-{os.environ['RANK']}", "w") as file:
        json.dump(left, file)
"""

ERASE = ("erase", "tiny", "--keep", "a house", "--json", "--concepts")
FITS = {
    "uce": ("concepts.csv", "--method", "uce"),
    "erasepro": ("concepts.csv", "--method", "erasepro", "--set", "gated=true"),
    "gloce": (
        *("few.csv", "--method", "gloce", "--set", "steps=5", "--set", "seeds=2"),
        *("--set", "batch=3", "--set", "boundary=fish", "--checkpoints", "statistics"),
    ),
}
EVALUATE = ("evaluate", "tiny", "--erasure", "one.safetensors", "--steps", "1", "--seeds", "3", "--cache")
REFUSED = ("erase", "tiny", "--concept", "cat", "--method")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As many threads as the launched processes have, so that sums are made in the same order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def launched(folder: Path, *commands: tuple[str, ...]) -> dict[str, Any]:
    """What two processes leave behind who run these commands one after another: by process, and by command.

    The launcher returns although the last one kills a process and leaves the other to itself.
    """
    (folder / "both.py").write_text(BOTH)
    how = (
        "--multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no --main_process_port 0"
    )
    ended = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", *how.split(), "both.py", json.dumps(commands)],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
        capture_output=True,
        timeout=150,
    )
    assert ended.returncode != 0
    texts = {path.name: path.read_text() for path in folder.iterdir() if path.name.startswith(("said-", "told-"))}
    return texts | {f"left-{rank}": json.loads((folder / f"left-{rank}").read_text()) for rank in (0, 1)}


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_two_processes_leave_what_one_leaves(run: Run, place: Path, install: Any, judge: str) -> None:
    plugins = ",".join(["halves", *FITS])
    install("efface-halves", {"efface_halves": HALVES + judge}, "[efface]\nhalves = efface_halves\n", plugin=plugins)
    rows = "".join(f"cat {number},{('dog', 'fish')[number % 2]}\n" for number in range(150))
    (place / "concepts.csv").write_text(f"concept,anchor\n{rows}")
    (place / "few.csv").write_text("concept,anchor,synonyms\ncat,dog,kitten\nred car,cat,\ndog,bird,\n")
    run("erase", "tiny", "--concept", "cat", "--anchor", "dog", "--method", "uce", "-o", "one.safetensors")
    for method, options in FITS.items():
        assert run(*ERASE, *options, "-o", f"{method}-1.safetensors").exit_code == 0
    (place / "statistics").rename(place / "statistics-1")
    assert run(*EVALUATE, "pictures-1", "-o", "found-1.json").exit_code == 0

    left = launched(
        place,
        *((*ERASE, *options, "-o", f"{method}-2.safetensors") for method, options in FITS.items()),
        (*EVALUATE, "pictures-2", "-o", "found-2.json"),
        (*REFUSED, "half"),
        (*REFUSED, "dim"),
        (*REFUSED, "erasepro"),
        ("erase", "tiny", "--concept", "cat", "--method", "uce", "-o", "one.safetensors"),
        (*REFUSED, "half", "--set", "kills=true"),
    )
    assert (left["left-0"][:8], left["left-1"]) == ([0] * 4 + [2] * 4, [0] * 8)

    for method in FITS:
        assert (place / f"{method}-2.safetensors").read_bytes() == (place / f"{method}-1.safetensors").read_bytes()
    assert contents(place / "statistics") == contents(place / "statistics-1")
    assert (place / "found-2.json").read_bytes() == (place / "found-1.json").read_bytes()
    pictures = contents(place / "pictures-2")
    assert pictures == contents(place / "pictures-1")
    assert len(pictures) > 5

    assert json.loads(left["said-0-0"])["file"] == "uce-2.safetensors"
    assert left["told-0-4"] == "Error: Process 1 of 2 failed: no luck\n"
    assert left["told-0-5"] == "Error: Method 'dim' fits in one process, and this run has 2\n"
    assert left["told-0-6"] == "Error: Method 'erasepro' with these settings fits in one process, and this run has 2\n"
    assert left["told-0-7"].startswith("Error: one.safetensors is there already")
    assert {text for name, text in left.items() if name.startswith(("said-1", "told-1"))} == {""}
    assert not list(place.glob("half-*"))
