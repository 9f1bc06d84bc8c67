"""Every seed is drawn once, prompts take turns, and a batch has one prompt."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from efface.evaluation.draws import Draw, other_seeds, spread


def test_prompts_take_turns_at_five_seeds_each() -> None:
    found = spread(["a", "b", "c"], range(20), batch_size=10)
    assert found == (
        Draw("a", (0, 1, 2, 3, 4, 15, 16, 17, 18, 19)),
        Draw("b", (5, 6, 7, 8, 9)),
        Draw("c", (10, 11, 12, 13, 14)),
    )


def test_few_seeds_take_few_prompts() -> None:
    assert spread(["a", "b"], (7, 3), batch_size=10) == (Draw("a", (7, 3)),)


def test_nothing_is_drawn_without_prompts() -> None:
    assert spread([], range(5), batch_size=10) == ()


@given(st.integers(1, 7), st.integers(1, 60), st.integers(1, 12))
def test_every_seed_is_drawn_once_in_batches_that_are_not_too_large(prompts: int, seeds: int, batch_size: int) -> None:
    found = spread([str(number) for number in range(prompts)], range(seeds), batch_size)
    assert sorted(seed for draw in found for seed in draw.seeds) == list(range(seeds))
    assert max(len(draw.seeds) for draw in found) <= batch_size


def test_other_seeds_are_as_many_and_others() -> None:
    assert other_seeds((0, 2, 3, 7)) == (1, 4, 5, 6)
