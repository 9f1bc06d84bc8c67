"""What a gated fit reads: a few prompts at a time, the same as all at once, and on from where it was interrupted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import efface
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
    from efface.testing import tiny_pipeline

    read(model, prompts, subjects, efface.Run(folder=tmp_path))
    other = efface.Model(tiny_pipeline("sd1", seed=1))
    fresh = read(other, prompts, subjects, efface.Run())
    found = read(other, prompts, subjects, efface.Run(folder=tmp_path))
    assert all(torch.equal(one, another) for one, another in zip(tensors(fresh), tensors(found), strict=True))
