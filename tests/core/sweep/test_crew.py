"""Workers get cells in turn; the cell of one that dies goes to a new one, but not for ever. Ray is a stand-in here."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from efface import EffaceError
from efface.sweep.crew import Bench, Crew
from efface.sweep.grid import Measure, Opening
from efface.sweep.sweeping import Event
from efface.sweep.worker import Finished


class RayError(Exception):
    pass


class RayActorError(RayError):
    pass


class Ray:
    """As much of Ray as a crew asks of it; workers die of the cells that are named, as often as is said."""

    class exceptions:  # noqa: N801
        RayError = RayError
        RayActorError = RayActorError

    def __init__(self, fatal: Mapping[str, int], *machines: Mapping[str, float]) -> None:
        self.fatal = dict(fatal)
        self.machines = machines or ({"CPU": 16.0},)
        self.workers = 0
        self.most_at_once = 0

    def nodes(self) -> list[dict[str, Any]]:
        gone = {"Alive": False, "Resources": {"CPU": 99.0, "GPU": 99.0}}
        return [gone, *({"Alive": True, "Resources": machine} for machine in self.machines)]

    @property
    def run(self) -> Ray:
        return self

    def remote(self, cell: str) -> str:
        return cell

    def wait(self, answers: list[str], num_returns: int) -> tuple[list[str], list[str]]:
        self.most_at_once = max(self.most_at_once, len(answers))
        return answers[:1], answers[1:]

    def get(self, answer: str) -> Finished:
        if answer == "odd":
            raise RayError("cannot be read\nfor some reason")
        if self.fatal.get(answer, 0) > 0:
            self.fatal[answer] -= 1
            raise RayActorError("the worker is gone\nand more")
        return Finished({"of": answer})


def events(monkeypatch: pytest.MonkeyPatch, ray: Ray, *cells: str, **options: Any) -> list[Event]:
    def worker(_crew: Crew, _ray: Any) -> Ray:
        ray.workers += 1
        return ray

    @contextmanager
    def cluster(_crew: Crew) -> Any:
        yield ray

    monkeypatch.setattr(Crew, "worker", worker)
    monkeypatch.setattr(Crew, "_cluster", cluster)
    crew = Crew(Opening("tiny"), Measure(), None, **options)
    return list(crew({cell: cell for cell in cells}))  # type: ignore[misc]


def finished(found: list[Event]) -> dict[str, Finished]:
    results = [(event.key, event.result) for event in found if event.result is not None]
    assert len({event.key for event in found}) == len(results)
    return dict(results)


@pytest.mark.parametrize(("workers", "made"), [(1, 1), (2, 2), (9, 4)])
def test_each_worker_has_one_cell_at_a_time(monkeypatch: pytest.MonkeyPatch, workers: int, made: int) -> None:
    ray = Ray({})
    found = events(monkeypatch, ray, "a", "b", "c", "d", workers=workers)
    assert finished(found) == {cell: Finished({"of": cell}) for cell in "abcd"}
    assert [event.key for event in found if event.result is None] == list("abcd")
    assert (ray.workers, ray.most_at_once) == (made, made)


def test_the_cell_of_a_dead_worker_goes_to_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = Ray({"a": 2})
    found = events(monkeypatch, ray, "a", "b", retries=2)
    assert finished(found) == {cell: Finished({"of": cell}) for cell in "ab"}
    assert [event.key for event in found if event.result is None] == ["a", "b", "a", "a"]
    assert ray.workers == 3


def test_a_cell_that_always_kills_is_given_up_and_the_others_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    found = finished(events(monkeypatch, Ray({"a": 9}), "a", "b", retries=1, workers=2))
    assert found == {"a": Finished(error="its worker died 2 times: the worker is gone"), "b": Finished({"of": "b"})}


def test_what_else_goes_wrong_on_the_way_is_the_cells_error(monkeypatch: pytest.MonkeyPatch) -> None:
    found = finished(events(monkeypatch, Ray({}), "odd", "b"))
    assert found == {"odd": Finished(error="cannot be read"), "b": Finished({"of": "b"})}


def test_a_model_that_a_worker_cannot_load_is_the_error_of_its_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*setup: object) -> None:
        raise EffaceError("No model here")

    monkeypatch.setattr("efface.sweep.crew.Worker", fail)
    bench = Bench(Opening("tiny"), Measure(), Path("unused"))
    assert bench.run(None) == Finished(error="No model here")  # type: ignore[arg-type]


ONE = {"CPU": 4.0, "GPU": 1.0}


@pytest.mark.parametrize(
    ("machines", "options", "message"),
    [
        ([{"CPU": 4.0}], {"gpus": 5}, "has room for 0 of 1 worker with 1 CPU and 5 GPU each; .* 4 CPU and 0 GPU"),
        ([ONE] * 5, {"gpus": 5}, "room for 0 of 1 worker .*; its machines have 4 CPU and 1 GPU, 4 CPU and 1 GPU"),
        ([ONE], {"gpus": 1, "workers": 2}, "room for 1 of 2 workers with 1 CPU and 1 GPU each"),
        ([ONE], {"gpus": 0.4, "workers": 3}, "room for 2 of 3 workers with 1 CPU and 0.4 GPU each"),
        ([ONE], {"cpus": 8}, "Ray at this machine has room for 0 of 1 worker with 8 CPU each"),
        ([ONE, ONE], {"cpus": 3, "workers": 3, "address": "ray://head:1"}, "Ray at ray://head:1 has room for 2 of 3"),
    ],
)
def test_workers_that_would_wait_for_ever_are_refused(
    monkeypatch: pytest.MonkeyPatch, machines: list[Any], options: dict[str, Any], message: str
) -> None:
    ray = Ray({}, *machines)
    with pytest.raises(EffaceError, match=message):
        events(monkeypatch, ray, "a", "b", "c", **options)
    assert ray.workers == 0


@pytest.mark.parametrize(
    ("machines", "options"),
    [([ONE], {"gpus": 0.5, "workers": 2}), ([ONE, ONE], {"gpus": 1, "workers": 2}), ([ONE], {"gpus": 1, "workers": 9})],
)
def test_workers_that_fit_begin(monkeypatch: pytest.MonkeyPatch, machines: list[Any], options: dict[str, Any]) -> None:
    """As many as there are cells, at the most."""
    cells = "ab" if options["workers"] == 2 else "a"
    assert set(finished(events(monkeypatch, Ray({}, *machines), *cells, **options))) == set(cells)


def test_gpus_are_shares_of_one_or_whole() -> None:
    with pytest.raises(EffaceError, match=r"a share of one GPU or a whole number of GPUs, not 1\.5"):
        Crew(Opening("tiny"), Measure(), None, gpus=1.5)
