"""Processes killed at random moments, and whether the files are the same after going on as without a kill.

Mass fits, an evaluation, two evaluations that share their pictures, a sweep and a save run on a tiny model, each in a
process that is killed (SIGKILL) at a moment drawn evenly from the time that it takes undisturbed, and then run again to
the end. Every file it leaves is compared by its hash with those of an undisturbed run; of a sweep, whose table also
has times, the figures and states. A sweep is killed as a whole and in another round loses one of its workers.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import torch

import efface
from efface.cli.group import efface as command
from efface.testing import tiny_pipeline

PLUGIN = """
import efface
import numpy as np


class Judge(efface.Suite):
    name = "judge"
    summary = "cats and dogs"
    digest = "1"
    guidance = 3.0
    example = efface.Request((efface.Concept("cat", "dog"),))

    def accepts(self, model):
        return True

    def concepts(self, kind=None):
        return [efface.SuiteConcept(one) for one in ("cat", "dog", "bird") if kind in (None, "object")]

    def templates(self, kind):
        return ["a {}", "a red {}"]

    def found(self, images, concept):
        return np.array([np.asarray(image).mean() / 255 for image in images])


@efface.hookimpl
def efface_suites():
    return [Judge()]
"""

GRID = """
model = "../model"

[evaluation]
suite = "judge"
seeds = 4
steps = 2

[[methods]]
method = "uce"
settings.lamb = [0.1, 0.5, 1.0]

[[concepts]]
concept = "cat"
anchor = "dog"
"""

VERSIONS = 60
MARK = ".efface-"

Files = dict[str, str]
Step = Callable[[Path], None]


def mass_fit(method: str, count: int, *settings: str) -> Step:
    """The fit of so many concepts from a table."""
    lines = "".join(f"cat {number},dog\n" for number in range(count))

    def fit(folder: Path) -> None:
        (folder / "concepts.csv").write_text(f"concept,anchor\n{lines}")
        given = [part for setting in settings for part in ("--set", setting)]
        table = ("--concepts", "concepts.csv", "--checkpoints", "state")
        run("erase", "../model", *table, "--method", method, *given, "--force")

    return fit


def evaluation(folder: Path) -> None:
    found = f"found-{os.environ.get('KILLS_PLACE', '0')}.json"
    erasure, how = "../cat.safetensors", ["--suite", "judge", "--seeds", "10", "--steps", "3"]
    run("evaluate", "../model", "--erasure", erasure, *how, "--cache", "pictures", "-o", found, "--force")


def sweep(folder: Path) -> None:
    (folder / "grid.toml").write_text(GRID)
    run("sweep", "grid.toml", "--workers", "1", "--cpus", "1", "--cache", "pictures")


def save(folder: Path) -> None:
    """Sixty versions of one file, one after another; what is there is always one of them."""
    for version in range(VERSIONS):
        values = torch.full((256, 1024), float(version))
        erasure = efface.Erasure.load("../cat.safetensors")
        fit = efface.Fit({**erasure.tensors, "keep": values}, dict(erasure.header.facts))
        cls = efface.Registry.installed().method("uce")
        made = efface.Erasure.of(
            cls(), fit, erasure.request, base=erasure.header.base, points=erasure.header.points, seed=version
        )
        made.save("saved.safetensors")


def run(*arguments: str) -> None:
    with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
        command.main([*arguments, "-q"], prog_name="efface", standalone_mode=False)


@dataclass(frozen=True)
class Activity:
    """What is done, by how many processes at once in one folder, and whether it has workers that can be killed."""

    name: str
    step: Step
    processes: int = 1
    workers: bool = False

    def start(self, folder: Path) -> list[int]:
        return [forked(self.step, folder, str(place)) for place in range(self.processes)]

    def whole(self, folder: Path) -> bool:
        """Whether everything that is there right after a kill can be read."""
        for file in folder.glob("*.safetensors"):
            efface.Erasure.load(file)
        for file in folder.glob("*.json"):
            json.loads(file.read_text())
        return True


ACTIVITIES = (
    Activity("mass fit by UCE", mass_fit("uce", 1000)),
    Activity("by gated ErasePro", mass_fit("erasepro", 1000, "gated=true")),
    Activity("by GLoCE", mass_fit("gloce", 8, "steps=4", "seeds=1", "collect_from=999", "collect_until=0")),
    Activity("evaluation", evaluation),
    Activity("two evaluations", evaluation, processes=2),
    Activity("save", save),
    Activity("sweep", sweep),
    Activity("sweep's worker", sweep, workers=True),
)


def forked(step: Step, folder: Path, place: str) -> int:
    """A process that takes the step in the folder and ends; everything is imported already."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.chdir(folder)
        os.environ["KILLS_PLACE"] = place
        step(folder)
        code = 0
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(code)


def ended(children: Sequence[int]) -> list[int]:
    """How each process ended: its exit code, or the number of the signal below zero."""
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def files(folder: Path) -> Files:
    """Every file by its hash; of a table of results what does not depend on the time."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        data = rows(path) if path.suffix == ".sqlite" else path.read_bytes()
        found[str(path.relative_to(folder))] = hashlib.sha256(data).hexdigest()
    return found


def rows(path: Path) -> bytes:
    with contextlib.closing(sqlite3.connect(path)) as base:
        found = base.execute("SELECT key, place, cell, state, figures, error FROM cells ORDER BY place").fetchall()
    return json.dumps(found).encode()


@dataclass
class Tally:
    """What came of the rounds of one activity."""

    activity: Activity
    seconds: float
    files: Files
    rounds: int = 0
    killed: int = 0
    same: int = 0
    leftovers: int = 0
    faults: list[str] = field(default_factory=list)

    def line(self) -> str:
        cells = (self.rounds, self.killed, self.leftovers, self.same)
        return f"{self.activity.name:<18} {self.seconds:>8.2f} {len(self.files):>6}" + "".join(
            f"{n:>12}" for n in cells
        )


HEADS = f"{'':<18} {'seconds':>8} {'files':>6}{'rounds':>12}{'killed':>12}{'half files':>12}{'same files':>12}"


def undisturbed(activity: Activity, place: Path) -> Tally:
    """How long it takes, and what it leaves."""
    folder = place / "undisturbed"
    folder.mkdir()
    before = time.perf_counter()
    codes = ended(activity.start(folder))
    seconds = time.perf_counter() - before
    if any(codes):
        raise SystemExit(f"{activity.name} fails without a kill: {codes}")
    found = files(folder)
    shutil.rmtree(folder)
    return Tally(activity, seconds, found)


def killed_once(tally: Tally, place: Path, draw: random.Random) -> None:
    """One round: start, kill one of the processes, look, go on to the end, compare."""
    activity, folder = tally.activity, place / "killed"
    folder.mkdir()
    children = activity.start(folder)
    time.sleep(draw.uniform(0, tally.seconds))
    victim = worker_of(children[0]) if activity.workers else children[0]
    if victim is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
    codes = ended(children)
    tally.rounds += 1
    tally.killed += codes[0] == -signal.SIGKILL or (activity.workers and victim is not None)
    tally.leftovers += sum(MARK in name for name in files(folder))
    try:
        activity.whole(folder)
    except Exception as error:
        tally.faults.append(f"{activity.name}: after the kill, {error}")
    again = ended(activity.start(folder)) if codes[0] else [0]
    found = files(folder)
    tally.same += found == tally.files
    differ = {name for name in found.keys() | tally.files.keys() if found.get(name) != tally.files.get(name)}
    if differ or any(again) or any(codes[1:]):
        tally.faults.append(f"{activity.name}: ended {codes}, then {again}; other files: {', '.join(sorted(differ))}")
    shutil.rmtree(folder)


def worker_of(child: int) -> int | None:
    """One of Ray's workers below a process, as soon as there is one; None where the process ended before."""
    with contextlib.suppress(psutil.Error):
        parent = psutil.Process(child)
        while parent.status() != psutil.STATUS_ZOMBIE:
            for process in parent.children(recursive=True):
                if "Bench" in " ".join(process.cmdline()):
                    return process.pid
            time.sleep(0.1)
    return None


@contextlib.contextmanager
def prepared() -> Iterator[Path]:
    """A folder with a tiny model, an erasure and the suite, which is installed while the context is open."""
    with tempfile.TemporaryDirectory(prefix="efface-kills-") as name:
        place = Path(name)
        site, about = place / "site", place / "site" / "efface_kills-1.0.dist-info"
        about.mkdir(parents=True)
        (site / "efface_kills.py").write_text(PLUGIN)
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: efface-kills\nVersion: 1.0\nSummary: A suite.\n")
        (about / "entry_points.txt").write_text("[efface]\nkills = efface_kills\n")
        sys.path.insert(0, str(site))
        os.environ |= {"PYTHONPATH": str(site), "EFFACE_LOAD_PLUGINS": "kills,uce,erasepro,gloce"}
        pipe = tiny_pipeline("sd1")
        pipe.save_pretrained(place / "model")
        efface.erase(pipe, "cat", anchor="dog", method="uce").save(place / "cat.safetensors")
        yield place


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    names = [activity.name for activity in ACTIVITIES]
    parser.add_argument("--only", action="append", choices=names, help="this activity; may be given several times")
    chosen = parser.parse_args(arguments)
    faults: list[str] = []
    print(HEADS, flush=True)
    with prepared() as place:
        for activity in ACTIVITIES:
            if activity.name not in (chosen.only or names):
                continue
            tally = undisturbed(activity, place)
            draw = random.Random(f"{chosen.seed} {activity.name}")
            for _ in range(chosen.rounds):
                killed_once(tally, place, draw)
            print(tally.line(), flush=True)
            faults += tally.faults
    for fault in faults:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
