"""Workers on Ray: on this machine, or on a cluster."""

from __future__ import annotations

import logging
import math
import os
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from efface.errors import EffaceError
from efface.sweep.grid import Cell, Measure, Opening
from efface.sweep.sweeping import Event
from efface.sweep.worker import Finished, Worker
from efface.wording import counted
from efface_hooks.errors import listed

STORE = 100 * 2**20  # bytes that Ray sets aside for what workers exchange: here a few kilobytes
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


@dataclass(frozen=True)
class Crew:
    """So many workers, each with a model of its own, with `cpus` threads and `gpus` (a share of one is fine).

    They run on this machine, or on the Ray cluster at `address`. The cell of a worker that dies is given to a new one,
    `retries` times at the most.
    """

    opening: Opening
    measure: Measure
    cache: Path | None
    workers: int = 1
    cpus: int = 1
    gpus: float = 0.0
    address: str | None = None
    retries: int = 3

    def __post_init__(self) -> None:
        if self.gpus > 1 and self.gpus != int(self.gpus):
            raise EffaceError(f"A worker takes a share of one GPU or a whole number of GPUs, not {self.gpus:g}")

    def __call__(self, cells: Mapping[str, Cell]) -> Iterator[Event]:
        with self._cluster() as ray:
            self._check(ray, min(self.workers, len(cells)))
            yield from _Shift(ray, self, cells).events()

    def worker(self, ray: Any) -> Any:
        actor = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_restarts=0)(Bench)
        return actor.remote(self.opening, self.measure, self.cache)

    def _check(self, ray: Any, workers: int) -> None:
        """EffaceError where not all of the workers fit at once: Ray would let a worker wait without an end."""
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        room = sum(self._room(machine) for machine in machines)
        if room < workers:
            each = f"{self.cpus} CPU and {self.gpus:g} GPU each" if self.gpus else f"{self.cpus} CPU each"
            there = listed(f"{one.get('CPU', 0):g} CPU and {one.get('GPU', 0):g} GPU" for one in machines)
            raise EffaceError(
                f"Ray at {self.address or 'this machine'} has room for {room} of {counted(workers, 'worker')} with "
                f"{each}; its machines have {there or 'nothing'}. Change --workers, --cpus or --gpus"
            )

    def _room(self, machine: Mapping[str, float]) -> int:
        """How many workers fit on a machine; a share of a GPU is of one GPU."""
        cpus, gpus = machine.get("CPU", 0), machine.get("GPU", 0)
        by_cpu = math.floor(cpus / self.cpus)
        if not self.gpus:
            return by_cpu
        return min(by_cpu, math.floor(gpus) * math.floor(1 / self.gpus) if self.gpus < 1 else int(gpus // self.gpus))

    @contextmanager
    def _cluster(self) -> Iterator[Any]:
        ray = _ray()
        here = {
            "num_cpus": self.workers * self.cpus,
            "object_store_memory": STORE,
            "include_dashboard": False,
        }
        try:
            ray.init(
                address=self.address or "local",
                logging_level=logging.ERROR,
                log_to_driver=False,
                **({} if self.address else here),
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise EffaceError(f"Cannot reach a Ray cluster at {self.address or 'this machine'}: {error}") from error
        try:
            yield ray
        finally:
            ray.shutdown()


class Bench:
    """A worker's place in a process of its own, where the model is loaded for the first cell."""

    def __init__(self, opening: Opening, measure: Measure, cache: Path | None) -> None:
        self._make = partial(Worker, opening, measure, cache)
        self._worker: Worker | None = None

    def run(self, cell: Cell) -> Finished:
        try:
            self._worker = self._worker or self._make()
        except EffaceError as error:
            return Finished(error=str(error))
        return self._worker.run(cell)


class _Shift:
    """Cells that wait, and workers that each have one."""

    def __init__(self, ray: Any, crew: Crew, cells: Mapping[str, Cell]) -> None:
        self.ray, self.crew, self.cells = ray, crew, cells
        self.waiting = deque(cells)
        self.deaths = dict.fromkeys(cells, 0)
        self.busy: dict[Any, tuple[str, Any]] = {}

    def events(self) -> Iterator[Event]:
        for _ in range(min(self.crew.workers, len(self.cells))):
            yield from self._begun(self.crew.worker(self.ray))
        while self.busy:
            (answer,), _ = self.ray.wait(list(self.busy), num_returns=1)
            key, worker = self.busy.pop(answer)
            try:
                yield Event(key, self.ray.get(answer))
            except self.ray.exceptions.RayActorError as error:
                yield from self._died(key, error)
                worker = None
            except self.ray.exceptions.RayError as error:
                yield Event(key, Finished(error=_first_line(error)))
            yield from self._begun(worker)

    def _begun(self, worker: Any) -> Iterator[Event]:
        """The next cell for a worker, a new one where the last has died; nothing where none waits."""
        if self.waiting:
            key = self.waiting.popleft()
            worker = worker or self.crew.worker(self.ray)
            yield Event(key)
            self.busy[worker.run.remote(self.cells[key])] = (key, worker)

    def _died(self, key: str, error: Exception) -> Iterator[Event]:
        self.deaths[key] += 1
        if self.deaths[key] <= self.crew.retries:
            self.waiting.append(key)
        else:
            reason = f"its worker died {self.deaths[key]} times: {_first_line(error)}"
            yield Event(key, Finished(error=reason))


def _ray() -> Any:
    check_installed()
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    import ray

    return ray


def check_installed() -> None:
    """EffaceError where there is no Ray."""
    if find_spec("ray") is None:
        raise EffaceError("A sweep runs on Ray, which is not installed: pip install 'efface[sweep]'")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
