"""A fit that several processes share: what one of them would have made, from the same number of pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import efface
from efface.method import Progress, silent
from efface.processes import FailedElsewhere, Processes
from efface.testing import tiny_pipeline
from efface.testing.together import together

Fit = Callable[..., efface.Erasure]
Calls = Callable[[], tuple[int, int]]

CONCEPTS = (
    efface.Concept("cat", anchor="fish"),
    efface.Concept("red car", anchor="fish"),
    efface.Concept("dog", anchor="cat"),
    efface.Concept("bird", anchor="house", synonyms=("tree",)),
    efface.Concept("boat", anchor="tree", kind="style"),
    efface.Concept("robot", anchor="tree"),
)
"""A concept is what another becomes, so is a synonym; and there are two centres."""

OPTIONS: dict[str, Any] = {
    "keep": ["a house", "a skull", "a flower"],
    "settings": {"batch": 3, "kept_seeds": 1, "boundary": ("skull", "mushroom")},
}


@pytest.fixture(scope="module")
def pipes() -> list[Any]:
    return [tiny_pipeline("sd1") for _ in range(3)]


@pytest.fixture(scope="module")
def alone(pipes: list[Any], quick: Fit) -> efface.Erasure:
    return quick(pipes[0], CONCEPTS, **OPTIONS)


@pytest.fixture
def shared(pipes: list[Any], quick: Fit) -> Callable[..., list[Any]]:
    """What each of several processes fits, or fails with; told their progress with their numbers."""

    def run(
        count: int, folder: Callable[[int], Path | None] = lambda rank: None, progress: Progress = silent
    ) -> list[Any]:
        def act(mine: Processes) -> efface.Erasure:
            return quick(
                pipes[mine.rank], CONCEPTS, **OPTIONS, progress=progress, folder=folder(mine.rank), processes=mine
            )

        return together(count, act)

    return run


def stop_at_thresholds(done: int, total: int, what: str) -> None:
    if what.startswith("thresholds"):
        raise ValueError("no luck")


@pytest.mark.parametrize("count", [2, 3])
def test_several_processes_fit_what_one_fits_from_as_many_pictures(
    shared: Callable[..., list[Any]], alone: efface.Erasure, calls: Calls, count: int
) -> None:
    assert shared(count) == [alone] * count
    assert calls()[1] == sum(alone.header.report["U-Net calls"].values())


def test_each_process_makes_its_part_of_the_pictures(
    pipes: list[Any], shared: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {id(pipe): 0 for pipe in pipes}
    predict = efface.Model.predict

    def counting(self: efface.Model, latents: Any, *rest: Any) -> Any:
        made[id(self.pipe)] += len(latents)
        return predict(self, latents, *rest)

    monkeypatch.setattr(efface.Model, "predict", counting)
    shared(2)
    first, second, nobody = made.values()
    assert nobody == 0
    assert min(first, second) > (first + second) / 4


@pytest.mark.parametrize("apart", [False, True], ids=["one folder", "a folder each"])
def test_a_shared_fit_that_was_interrupted_goes_on_to_the_same_result(
    pipes: list[Any],
    quick: Fit,
    shared: Callable[..., list[Any]],
    alone: efface.Erasure,
    calls: Calls,
    tmp_path: Path,
    apart: bool,
) -> None:
    def folder(rank: int) -> Path:
        own = tmp_path / str(rank) if apart else tmp_path
        own.mkdir(exist_ok=True)
        return own

    ended = shared(2, folder, stop_at_thresholds)
    assert {type(end) for end in ended} <= {ValueError, FailedElsewhere}
    calls()
    assert shared(2, folder) == [alone, alone]
    report = alone.header.report["U-Net calls"]
    assert calls()[1] == report["boundary"] + report["kept"]
    assert quick(pipes[0], CONCEPTS, **OPTIONS, folder=folder(0)) == alone
    assert (calls() == (0, 0)) == (not apart)


def test_what_is_kept_of_thresholds_the_first_process_has(
    shared: Callable[..., list[Any]], alone: efface.Erasure, calls: Calls, tmp_path: Path
) -> None:
    def folder(rank: int) -> Path:
        own = tmp_path / str(rank)
        own.mkdir(exist_ok=True)
        return own

    shared(2, folder)
    kept = [sorted({path.name.split("-")[1] for path in folder(rank).iterdir()}) for rank in range(2)]
    assert kept == [["moments", "peaks"], ["moments"]]
    calls()
    assert shared(2, folder) == [alone, alone]
    assert calls() == (0, 0)


def test_when_one_process_fails_the_others_hear_of_it(
    pipes: list[Any], shared: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    predict = efface.Model.predict

    def fails(self: efface.Model, *given: Any) -> Any:
        if self.pipe is pipes[1]:
            raise ValueError("no luck")
        return predict(self, *given)

    monkeypatch.setattr(efface.Model, "predict", fails)
    heard, failed = shared(2)
    assert isinstance(failed, ValueError)
    assert isinstance(heard, FailedElsewhere)
    assert str(heard) == "Process 1 of 2 failed: no luck"
