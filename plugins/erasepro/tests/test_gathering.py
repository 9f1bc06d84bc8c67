"""What a gated fit reads: a few prompts at a time, the same as all at once, and on from where it was interrupted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import efface
from efface.processes import FailedElsewhere, Processes
from efface.testing import tiny_pipeline
from efface.testing.together import together
from efface_erasepro import gathering
from efface_erasepro.batch import Batch, Cells, Choice, batch
from efface_erasepro.demand import Demand
from efface_erasepro.gathering import Gathered, gather
from efface_erasepro.reading import embedded

REQUEST = efface.Request(
    (efface.Concept("cat", "dog", synonyms=("kitten",)), efface.Concept("red car", "house")), keep=("a bird",)
)
CHOICE = Choice("tail", pads=5, invariants=3, hold=(), averaged=True, prior_weight=1.0)
KEEP = 0.5


@pytest.fixture(scope="module")
def prompts(model: efface.Model) -> Batch:
    return batch(model, REQUEST, REQUEST.templates, CHOICE).once


@pytest.fixture
def subjects(prompts: Batch) -> Cells:
    rows = len(REQUEST.templates) * torch.arange(3)
    return Cells(rows, torch.tensor([2, 2, 3]), torch.ones(3))


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three prompts in a pass, and what was read is kept after each."""
    monkeypatch.setattr(gathering, "TOGETHER", 3)
    monkeypatch.setattr(gathering, "SAVED", 1)


def read(model: efface.Model, prompts: Batch, subjects: Cells, run: efface.Run) -> Gathered:
    return gather(model, prompts, subjects, KEEP, None, run)


def tensors(found: Gathered) -> list[torch.Tensor]:
    demand = found.demand
    assert demand.kept is not None
    columns = [demand.erased, demand.kept, demand.still]
    return [found.signatures, found.nearest, *(part for one in columns for part in (one.inputs, one.change, one.mass))]


class Stopped(Exception):
    pass


@pytest.mark.usefixtures("few")
def test_a_few_prompts_at_a_time_ask_what_all_of_them_ask(model: efface.Model, prompts: Batch, subjects: Cells) -> None:
    found = read(model, prompts, subjects, efface.Run()).demand
    whole = Demand.of(prompts, embedded(model, prompts.prompts, None, len(prompts.prompts)).hidden, KEEP)
    assert found.kept is not None
    assert whole.kept is not None
    for one, other in ((found.erased, whole.erased), (found.kept, whole.kept), (found.still, whole.still)):
        assert one.labels == other.labels
        for name in ("inputs", "change", "mass"):
            torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=1e-5, atol=1e-6)
    assert found.rtol == whole.rtol


def test_the_cosine_is_the_largest_with_any_token_that_is_no_target(
    model: efface.Model, prompts: Batch, subjects: Cells
) -> None:
    found = read(model, prompts, subjects, efface.Run())
    hidden = embedded(model, prompts.prompts, None, len(prompts.prompts)).hidden
    others = torch.cat([cells.features(hidden) for cells in (prompts.kept, prompts.still, prompts.anchors)], 1)
    mine = torch.nn.functional.normalize(hidden[subjects.rows, subjects.positions].double(), dim=1)
    nearest = (mine @ torch.nn.functional.normalize(others, dim=0)).amax(1)
    torch.testing.assert_close(found.nearest, nearest.float(), rtol=0, atol=1e-5)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("stop", [1, 2])
def test_an_interrupted_reading_goes_on_to_the_same_bits(
    model: efface.Model, prompts: Batch, subjects: Cells, tmp_path: Path, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stops(done: int, total: int, what: str) -> None:
        if done == 3 * stop:
            raise Stopped

    whole = read(model, prompts, subjects, efface.Run())
    with pytest.raises(Stopped):
        read(model, prompts, subjects, efface.Run(progress=stops, folder=tmp_path))
    passes: list[int] = []
    plain = gathering.embedded

    def counted(*arguments: Any) -> efface.Encoded:
        passes.append(len(arguments[1]))
        return plain(*arguments)

    monkeypatch.setattr(gathering, "embedded", counted)
    resumed = read(model, prompts, subjects, efface.Run(folder=tmp_path))
    assert sum(passes) == len(prompts.prompts) - 3 * stop + 1  # one to learn the dtype
    assert all(torch.equal(one, other) for one, other in zip(tensors(whole), tensors(resumed), strict=True))


@pytest.mark.usefixtures("few")
def test_another_model_starts_anew(model: efface.Model, prompts: Batch, subjects: Cells, tmp_path: Path) -> None:
    read(model, prompts, subjects, efface.Run(folder=tmp_path))
    other = efface.Model(tiny_pipeline("sd1", seed=1))
    fresh = read(other, prompts, subjects, efface.Run())
    found = read(other, prompts, subjects, efface.Run(folder=tmp_path))
    assert all(torch.equal(one, another) for one, another in zip(tensors(fresh), tensors(found), strict=True))


# Several processes


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The prompts of every pass but the one that tells the dtype."""
    found: list[tuple[str, ...]] = []
    plain = gathering.embedded

    def counted(model: efface.Model, prompts: Any, *rest: Any) -> efface.Encoded:
        if rest[-1] != 1:
            found.append(tuple(prompts))
        return plain(model, prompts, *rest)

    monkeypatch.setattr(gathering, "embedded", counted)
    return found


@pytest.fixture
def shared(prompts: Batch, subjects: Cells) -> Callable[..., list[Any]]:
    """What each of several processes reads, or fails with; those with a folder have their own in it."""

    def run(count: int, folder: Path | None = None, progress: efface.method.Progress = efface.method.silent) -> Any:
        models = [efface.Model(tiny_pipeline("sd1")) for _ in range(count)]

        def act(mine: Processes) -> Gathered:
            own = folder / str(mine.rank) if folder else None
            run = efface.Run(progress=progress, folder=own, processes=mine)
            return read(models[mine.rank], prompts, subjects, run)

        return together(count, act)

    return run


def assert_all_equal(found: list[Any], wanted: Gathered) -> None:
    for one in found:
        assert all(torch.equal(mine, its) for mine, its in zip(tensors(one), tensors(wanted), strict=True))


@pytest.mark.parametrize(("count", "size"), [(2, 2), (3, 2), (2, 3), (2, 5), (3, 64)])
def test_several_processes_read_the_same_bits_and_each_pass_once(
    model: efface.Model,
    prompts: Batch,
    subjects: Cells,
    shared: Callable[..., list[Any]],
    passes: list[tuple[str, ...]],
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    size: int,
) -> None:
    """Of two prompts a pass, the second has a subject and an anchor."""
    monkeypatch.setattr(gathering, "TOGETHER", size)
    alone, once = read(model, prompts, subjects, efface.Run()), sorted(passes)
    passes.clear()
    assert_all_equal(shared(count), alone)
    assert sorted(passes) == once


@pytest.mark.usefixtures("few")
def test_processes_go_on_from_what_the_first_one_has_kept(
    model: efface.Model,
    prompts: Batch,
    subjects: Cells,
    shared: Callable[..., list[Any]],
    passes: list[tuple[str, ...]],
    tmp_path: Path,
) -> None:
    alone = read(model, prompts, subjects, efface.Run())

    def stops_at(moment: int) -> efface.method.Progress:
        def stops(done: int, total: int, what: str) -> None:
            if done == moment:
                raise Stopped

        return stops

    assert [type(end) for end in shared(2, tmp_path, stops_at(3))] == [Stopped, Stopped]
    assert [len(list(path.iterdir())) for path in tmp_path.iterdir()] == [1]
    with pytest.raises(Stopped):
        read(model, prompts, subjects, efface.Run(progress=stops_at(6), folder=tmp_path / "1"))
    passes.clear()
    assert_all_equal(shared(2, tmp_path), alone)
    assert sorted(passes) == sorted([prompts.prompts[3:6], prompts.prompts[6:]])
    passes.clear()
    (tmp_path / "0").rename(tmp_path / "2")
    assert_all_equal([read(model, prompts, subjects, efface.Run(folder=tmp_path / "2"))], alone)
    assert passes == []


@pytest.mark.usefixtures("few")
def test_when_one_process_fails_the_others_hear_of_it(
    shared: Callable[..., list[Any]], prompts: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = gathering.embedded

    def fails(model: efface.Model, given: Any, *rest: Any) -> efface.Encoded:
        if given == prompts.prompts[3:6]:
            raise ValueError("no luck")
        return plain(model, given, *rest)

    monkeypatch.setattr(gathering, "embedded", fails)
    failed, heard = shared(2)
    assert isinstance(failed, ValueError)
    assert isinstance(heard, FailedElsewhere)
    assert str(heard) == "Process 0 of 2 failed: no luck"
