"""A checkpoint is found again by what it depends on, and only by that."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from efface import EffaceError, Run, optimizer_tensors, restore_optimizer

STATE = {"weights": torch.arange(3.0), "moment.mean": torch.tensor(2, dtype=torch.int64)}


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    Run(folder=tmp_path).checkpoint("training", {"rate": 0.1}).save(STATE, {"losses": [2.0, 1.0]})
    found = Run(folder=tmp_path).checkpoint("training", {"rate": 0.1}).load()
    assert found is not None
    assert {name: value.tolist() for name, value in found.tensors.items()} == {"weights": [0, 1, 2], "moment.mean": 2}
    assert found.facts == {"losses": [2.0, 1.0]}
    assert {name: int(value) for name, value in found.part("moment.").items()} == {"mean": 2}


@pytest.mark.parametrize(
    "other",
    [
        ("training", {"rate": 0.2}, torch.zeros(2)),
        ("training", {"rate": 0.1}, torch.ones(2)),
        ("training", {"rate": 0.1}, torch.zeros(2, 1)),
        ("training", {"rate": 0.1}, torch.zeros(2, dtype=torch.int32)),
        ("training", {"rate": 0.1}),
        ("another", {"rate": 0.1}, torch.zeros(2)),
    ],
)
def test_another_identity_has_another_file(other: tuple[str, object], tmp_path: Path) -> None:
    run = Run(folder=tmp_path)
    run.checkpoint("training", {"rate": 0.1}, torch.zeros(2)).save(STATE)
    assert run.checkpoint(*other).load() is None
    assert run.checkpoint("training", {"rate": 0.1}, torch.zeros(2)).load() is not None


def test_the_order_of_a_dict_does_not_matter(tmp_path: Path) -> None:
    run = Run(folder=tmp_path)
    run.checkpoint("training", {"a": 1, "b": torch.tensor(2)}).save(STATE)
    assert run.checkpoint("training", {"b": torch.tensor(2), "a": 1}).load() is not None


def test_without_a_folder_nothing_is_kept() -> None:
    checkpoint = Run().checkpoint("training")
    checkpoint.save(STATE)
    assert checkpoint.load() is None


def test_a_file_that_is_not_whole_is_named(tmp_path: Path) -> None:
    Run(folder=tmp_path).checkpoint("training").save(STATE)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(EffaceError, match=f"{file.name}: not a checkpoint of this fit .*delete it"):
        Run(folder=tmp_path).checkpoint("training").load()


def test_an_identity_of_anything_else_is_refused() -> None:
    with pytest.raises(EffaceError, match="holds JSON and tensors, not"):
        Run(folder=Path("unused")).checkpoint("training", object())


def trained(weight: Tensor, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        (weight**2).sum().backward()
        optimizer.step()


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_an_optimizer_goes_on_to_the_same_bits(kind: type[torch.optim.Optimizer]) -> None:
    at_once, first = (torch.ones(3, requires_grad=True) for _ in range(2))
    trained(at_once, kind([at_once], lr=0.1), 5)
    optimizer = kind([first], lr=0.1)
    trained(first, optimizer, 2)
    second = first.detach().clone().requires_grad_()
    again = kind([second], lr=0.1)
    restore_optimizer(again, optimizer_tensors(optimizer))
    trained(second, again, 3)
    assert torch.equal(second, at_once)
