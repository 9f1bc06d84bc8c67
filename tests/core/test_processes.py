"""What several processes of one run say to each other; here with threads in their place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from efface import EffaceError, processes
from efface.processes import ALONE, FailedElsewhere, Processes, launched, told_by
from efface.testing import together as threads

Together = Callable[[Callable[[Processes], Any]], list[Any]]


@pytest.fixture
def together() -> Together:
    """Runs a function as each of three processes; what they return or raise."""
    return partial(threads.together, 3)


@pytest.mark.parametrize(
    ("told", "found"),
    [
        ({}, ALONE),
        ({"WORLD_SIZE": "1", "RANK": "0"}, ALONE),
        ({"WORLD_SIZE": "4"}, ALONE),
        ({"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1"}, Processes(3, 4, 1)),
        ({"WORLD_SIZE": "4", "RANK": "3"}, Processes(3, 4, 0)),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}, Processes(1, 2, 0)),
    ],
)
def test_who_a_process_is_the_launcher_says(told: dict[str, str], found: Processes) -> None:
    assert told_by(told) == found


def test_one_process_does_everything_itself_and_as_late_as_possible() -> None:
    made: list[int] = []
    results = ALONE.each(range(3), lambda item: made.append(item) or item * 10)
    assert made == []
    assert (next(results), made) == (0, [0])
    assert (list(results), made) == ([10, 20], [0, 1, 2])
    assert ALONE.gather("a") == ["a"]
    assert ALONE.first(lambda: 5) == 5


def test_without_a_launcher_nothing_is_imported_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(processes, "_connect", None)
    with launched() as found:
        assert found == ALONE


@pytest.mark.parametrize("items", [0, 1, 3, 7])
def test_every_item_is_computed_once_and_all_get_every_result_in_order(together: Together, items: int) -> None:
    made: list[tuple[int, int]] = []

    def act(mine: Processes) -> list[int]:
        def compute(item: int) -> int:
            made.append((item, mine.rank))
            return item * 10

        return list(mine.each(range(items), compute))

    assert together(act) == [[item * 10 for item in range(items)]] * 3
    assert sorted(made) == [(item, item % 3) for item in range(items)]


def test_what_the_first_one_finds_all_of_them_have(together: Together) -> None:
    assert together(lambda mine: mine.first(lambda: f"by {mine.rank}")) == ["by 0"] * 3
    assert together(lambda mine: mine.gather(mine.rank)) == [[0, 1, 2]] * 3


def test_when_one_fails_the_others_hear_why_and_nobody_waits(together: Together) -> None:
    def act(mine: Processes) -> Iterator[int]:
        def compute(item: int) -> int:
            if item == 4:
                raise ValueError("no luck")
            return item

        return list(mine.each(range(9), compute))  # type: ignore[return-value]

    first, failed, last = together(act)
    assert isinstance(failed, ValueError)
    for heard in (first, last):
        assert isinstance(heard, FailedElsewhere)
        assert str(heard) == "Process 1 of 3 failed: no luck"


def test_a_failure_after_the_last_exchange_is_heard_too(together: Together) -> None:
    def act(mine: Processes) -> int:
        if mine.rank == 0:
            raise ValueError("disk full")
        return mine.rank

    failed, *others = together(act)
    assert isinstance(failed, ValueError)
    assert [str(heard) for heard in others] == ["Process 0 of 3 failed: disk full"] * 2


def test_several_may_fail_at_once(together: Together) -> None:
    def act(mine: Processes) -> None:
        if mine.rank:
            raise ValueError(str(mine.rank))

    heard, *failed = together(act)
    assert str(heard) == "Process 1 of 3 failed: 1"
    assert [str(one) for one in failed] == ["1", "2"]


def test_different_models_are_refused_everywhere(together: Together) -> None:
    def act(mine: Processes) -> None:
        mine.check_same("model", min(mine.rank, 1))

    ended = together(act)
    assert [type(one) for one in ended] == [EffaceError] * 3
    assert str(ended[0]) == "Processes 0 and 1 do not have the same model"
    assert together(lambda mine: mine.check_same("model", {"a": 1})) == [None] * 3


def test_each_process_takes_a_device_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.accelerator.device_count", lambda: 2)
    assert [Processes(rank, 3, rank).device("cuda") for rank in range(3)] == ["cuda:0", "cuda:1", "cuda:0"]
    assert Processes(1, 3, 1).device("cuda:0") == "cuda:0"
    assert Processes(1, 3, 1).device("cpu") == "cpu"
    assert ALONE.device("cuda") == "cuda"
