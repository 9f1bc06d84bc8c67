"""Several processes of one run in a test, with threads in their place."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from efface import processes
from efface.processes import Processes, launched

SECONDS = 60


def together(count: int, act: Callable[[Processes], Any]) -> list[Any]:
    """What `act` returns or raises as each of the processes, inside `launched`.

    The threads share all that this process has, so each wants a pipeline of its own, made before.
    """
    table = _Table(count)
    ended: dict[int, Any] = {}

    def one(rank: int) -> None:
        table.seat.rank = rank
        try:
            with launched() as mine:
                ended[rank] = act(mine)
        except Exception as error:
            ended[rank] = error

    with (
        patch.object(processes, "_exchanged", table.exchanged),
        patch.object(processes, "_connect", lambda: None),
        patch.object(processes, "told_by", lambda _: Processes(table.seat.rank, count, table.seat.rank)),
    ):
        threads = [threading.Thread(target=one, args=(rank,)) for rank in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(2 * SECONDS)
    return [ended[rank] for rank in range(count)]


class _Table:
    """Where threads put down what they say, and each reads what all of them said."""

    def __init__(self, count: int) -> None:
        self.barrier = threading.Barrier(count, timeout=SECONDS)
        self.words: dict[int, bytes] = {}
        self.seat = threading.local()

    def exchanged(self, mine: Any) -> list[Any]:
        self.words[self.seat.rank] = pickle.dumps(mine)
        self.barrier.wait()
        found = [pickle.loads(self.words[rank]) for rank in range(self.barrier.parties)]
        self.barrier.wait()
        return found
