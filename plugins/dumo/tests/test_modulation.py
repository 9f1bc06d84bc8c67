"""Tables of timestep and layer: bins, groups, kinds."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import efface
from efface_dumo.modulation import Modulation, bin_of, groups_of, joined

TIME = torch.tensor([[1.0, 2.0], [3.0, -1.0]])
TIMES = torch.tensor([0, 999])


@pytest.mark.parametrize(
    ("timestep", "found"), [(0, 0), (49, 0), (50, 1), (49.98, 0), (999, 19), (1000, 19), (801.2, 16), (-1, 0)]
)
def test_bins_are_equal_parts_of_the_schedule(timestep: float, found: int) -> None:
    assert bin_of(torch.tensor([timestep]), 1000, 20).tolist() == [found]


def test_bins_of_half_precision_timesteps_are_exact_where_the_timestep_is() -> None:
    assert bin_of(torch.tensor([950.0, 999.0]).half(), 1000, 20).tolist() == [19, 19]
    assert bin_of(torch.tensor([500]), 500, 20).tolist() == [19]


@pytest.mark.parametrize(("kind", "shape"), [("time_layer", (20, 3)), ("time", (20, 1)), ("layer", (1, 3))])
def test_tables_start_at_one(kind: Any, shape: tuple[int, int]) -> None:
    modulation = Modulation(kind, 20, range(3), 2)
    assert tuple(modulation.table.shape) == shape
    assert torch.equal(modulation(TIMES, 1000, TIME), torch.ones(2, 3))
    assert torch.equal(modulation.full_table(), torch.ones(20, 3))


def test_a_table_weighs_by_row_and_column() -> None:
    modulation = Modulation("time_layer", 2, range(3), 2)
    modulation.table.data = torch.tensor([[1.0, 2, 3], [4, 5, 6]])
    assert modulation(TIMES, 1000, TIME).tolist() == [[1, 2, 3], [4, 5, 6]]
    modulation = Modulation("time", 2, range(3), 2)
    modulation.table.data = torch.tensor([[1.0], [4]])
    assert modulation(TIMES, 1000, TIME).tolist() == [[1, 1, 1], [4, 4, 4]]
    modulation = Modulation("layer", 2, range(3), 2)
    modulation.table.data = torch.tensor([[1.0, 2, 3]])
    assert modulation(TIMES, 1000, TIME).tolist() == [[1, 2, 3], [1, 2, 3]]


def test_layers_of_one_group_share_a_column() -> None:
    modulation = Modulation("time_layer", 1, [0, 1, 0], 2)
    modulation.table.data = torch.tensor([[5.0, 7.0]])
    assert modulation(TIMES, 1000, TIME).tolist() == [[5, 7, 5]] * 2


def test_the_linear_one_starts_at_one_and_reads_the_time_embedding() -> None:
    modulation = Modulation("linear", 20, range(2), 2)
    assert torch.equal(modulation(TIMES, 1000, TIME), torch.ones(2, 2))
    modulation.weight.data = torch.tensor([[1.0, 0], [0, 1]])
    assert modulation(TIMES, 1000, TIME).tolist() == [[2, 3], [4, 0]]


def test_the_blend_starts_at_an_eighth_or_so() -> None:
    found = Modulation("blend", 20, range(2), 2)(TIMES, 1000, TIME)
    torch.testing.assert_close(found, torch.full((2, 2), 0.1192), rtol=0, atol=1e-4)


def test_none_has_nothing_to_train() -> None:
    modulation = Modulation("none", 20, range(2), 2)
    assert list(modulation.parameters()) == []
    assert torch.equal(modulation(TIMES, 1000, TIME), torch.ones(2, 2))


def test_silent_bins_are_those_whose_layers_are_all_zero() -> None:
    modulation = Modulation("time_layer", 3, range(2), 2)
    assert modulation.silent_bins(2) == []
    modulation.table.data = torch.tensor([[0.0, 0], [0, 1], [1, 0]])
    assert modulation.silent_bins(2) == [True, False, False]
    assert modulation.silent_bins(1) == [True, True, False]
    assert Modulation("linear", 3, range(2), 2).silent_bins(2) == []


def test_groups_are_checked() -> None:
    assert groups_of((), 3) == [0, 1, 2]
    assert groups_of((1, 0, 1), 3) == [1, 0, 1]
    for wrong in ((0, 1), (0, 2, 2), (-1, 0, 1)):
        with pytest.raises(efface.BadSetting, match="layer_groups must name a group"):
            groups_of(wrong, 3)


def test_outputs_are_added_or_blended() -> None:
    feature, output = torch.full((2, 1, 1, 1), 10.0), torch.full((2, 1, 1, 1), 4.0)
    weight, strength = torch.tensor([0.5, 2.0]), torch.tensor([1.0, 0.5])
    assert joined(feature, output, weight, "time_layer").flatten().tolist() == [12, 18]
    assert joined(feature, output, weight, "time_layer", strength).flatten().tolist() == [12, 14]
    assert joined(feature, output, weight, "blend").flatten().tolist() == [7, -2]
    assert joined(feature, output, weight, "blend", strength).flatten().tolist() == [7, 4]


def test_weights_do_not_widen_half_precision() -> None:
    feature = torch.ones(1, 1, 1, 1, dtype=torch.float16)
    assert joined(feature, feature, torch.ones(1), "time_layer", torch.ones(1)).dtype == torch.float16
