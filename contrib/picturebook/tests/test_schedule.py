"""The learning rate warms up, stays, and decays."""

import pytest

from efface_picturebook.schedule import FLOOR, Plan

PLAN = Plan(steps=1000, rate=1e-3, warm_up=100, decay=0.4)


def test_the_decay_takes_the_last_part_of_the_run() -> None:
    assert PLAN.decay_start == 600


@pytest.mark.parametrize(("step", "rate"), [(0, 1e-5), (49, 5e-4), (99, 1e-3), (100, 1e-3), (599, 1e-3)])
def test_the_rate_warms_up_and_stays(step: int, rate: float) -> None:
    assert PLAN.rate_at(step) == pytest.approx(rate)


def test_the_rate_falls_in_a_straight_line_to_its_floor() -> None:
    assert PLAN.rate_at(800) == pytest.approx(1e-3 * (FLOOR + (1 - FLOOR) / 2))
    assert PLAN.rate_at(1000) == pytest.approx(1e-3 * FLOOR)


def test_a_longer_plan_has_the_same_rate_up_to_the_shorter_plans_decay() -> None:
    longer = Plan(steps=2000, rate=1e-3, warm_up=100, decay=0.4)
    assert all(longer.rate_at(step) == PLAN.rate_at(step) for step in range(PLAN.decay_start))
