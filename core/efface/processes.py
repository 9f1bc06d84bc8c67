"""The processes of one run, where a launcher started several: who this one is, and what they tell each other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from efface.errors import EffaceError

T = TypeVar("T")
R = TypeVar("R")

LAUNCHERS = (
    ("WORLD_SIZE", "RANK", "LOCAL_RANK"),
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"),
    ("PMI_SIZE", "PMI_RANK", "MPI_LOCALRANKID"),
    ("MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_LOCAL_RANK"),
)
PATIENCE = timedelta(days=7)


class FailedElsewhere(EffaceError):
    """Another process of the run has failed, so this one cannot go on."""


@dataclass(frozen=True)
class Processes:
    """This process is number `rank` of the `count` processes of a run, and number `local` of those on its machine.

    A run of one process, the default, sends nothing. In a run of several every process calls the same functions of
    this class in the same order. All of them raise FailedElsewhere when a process has failed.
    """

    rank: int = 0
    count: int = 1
    local: int = 0

    def gather(self, mine: T) -> list[T]:
        """What each process has, in the order of their numbers; every process gets all of it."""
        if self.count == 1:
            return [mine]
        heard = _exchanged(_Word(mine))
        for rank, word in enumerate(heard):
            if word.failure is not None:
                raise FailedElsewhere(f"Process {rank} of {self.count} failed: {word.failure}")
        return [word.said for word in heard]

    def first(self, compute: Callable[[], T]) -> T:
        """What the first process computes; the others wait for it."""
        (found,) = self.gather([compute()] if self.rank == 0 else [])[0]
        return found

    def each(self, items: Sequence[T], compute: Callable[[T], R]) -> Iterator[R]:
        """The result for every item in order, each computed by one process and given to all.

        They go in rounds of one item per process, so that results can be kept as they come and a failure is known
        within a round. Which process computes an item depends on its place alone.
        """
        for start in range(0, len(items), self.count):
            own = items[start + self.rank : start + self.rank + 1]
            for part in self.gather([compute(item) for item in own]):
                yield from part

    def check_same(self, about: str, what: object) -> None:
        """EffaceError where a process has something else than the first one."""
        for rank, other in enumerate(self.gather(what)):
            if other != what:
                raise EffaceError(f"Processes {self.rank} and {rank} do not have the same {about}")

    def device(self, name: str) -> str:
        """The device for this process: of an accelerator named without a number, each process takes one."""
        if self.count == 1 or name == "cpu" or ":" in name:
            return name
        import torch

        return f"{name}:{self.local % max(1, torch.accelerator.device_count())}"


ALONE = Processes()


def told_by(environment: Mapping[str, str]) -> Processes:
    """What a launcher's variables say: those of accelerate and torchrun, or of MPI."""
    for count, rank, local in LAUNCHERS:
        if environment.get(rank, "").isdecimal() and int(environment.get(count, "1")) > 1:
            return Processes(int(environment[rank]), int(environment[count]), int(environment.get(local, "0")))
    return ALONE


@contextmanager
def launched() -> Iterator[Processes]:
    """The processes that a launcher started this one among, while the context is open; one alone without a launcher.

    They leave together. When one of them leaves by an error, the others hear of it the next time they exchange
    anything, and raise FailedElsewhere; nobody waits for a process that has failed.
    """
    found = told_by(os.environ)
    if found.count == 1:
        yield found
        return
    _connect()
    try:
        yield found
    except FailedElsewhere:
        raise
    except Exception as error:
        with suppress(EffaceError):
            _exchanged(_Word(failure=str(error) or type(error).__name__))
        raise
    found.gather(None)


@dataclass(frozen=True)
class _Word:
    """What a process says in an exchange: something, or that it has failed."""

    said: Any = None
    failure: str | None = None


def _connect() -> None:
    """Connect through accelerate, once and for good: on the CPU, for what is exchanged is plain data wherever it is
    computed."""
    from accelerate import PartialState

    PartialState(cpu=True, timeout=PATIENCE)


def _exchanged(mine: _Word) -> list[_Word]:
    from accelerate.utils import gather_object

    try:
        found: list[_Word] = gather_object([mine])
    except RuntimeError as error:
        raise FailedElsewhere(f"A process of this run ended without a word ({error})") from error
    return found
