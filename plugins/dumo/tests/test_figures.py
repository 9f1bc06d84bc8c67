"""The pictures of a training say what its numbers say."""

from __future__ import annotations

from efface_dumo.figures import CELL, EDGE, NEUTRAL, STRONG, WEAK, loss_curves, time_layer_table


def test_the_table_is_white_at_one_red_above_and_blue_below() -> None:
    image = time_layer_table([[1.0, 3.0], [-1.0, 1.0]])

    def cell(row: int, column: int) -> object:
        return image.getpixel((EDGE + column * CELL + 2, EDGE + row * CELL + 2))

    assert [cell(1, 0), cell(1, 1)] == [NEUTRAL, STRONG]  # bin 0, the last of the way, is at the bottom
    assert [cell(0, 0), cell(0, 1)] == [WEAK, NEUTRAL]


def test_there_is_a_panel_for_each_stage() -> None:
    curve = {"erase": [1.0, 0.1], "retain": [0.0, 0.01]}
    one, two = loss_curves({"branch": curve}), loss_curves({"branch": curve, "table": curve})
    assert two.width > one.width
    assert two.height == one.height
    assert len(one.getcolors(1 << 16) or []) > 3


def test_a_stage_without_steps_and_a_table_of_ones_can_be_drawn() -> None:
    assert loss_curves({"branch": {"erase": [], "retain": []}}).width > 0
    assert time_layer_table([[1.0]]).getpixel((EDGE + 2, EDGE + 2)) == NEUTRAL
