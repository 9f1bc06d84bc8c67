"""From 0.5 on a concept counts as shown, whatever a judge's own threshold is."""

from __future__ import annotations

import numpy as np
import pytest

from efface_judges.threshold import sureness


@pytest.mark.parametrize("threshold", [0.01, 0.2, 0.5, 0.6, 0.99])
def test_a_half_is_at_the_threshold_and_certainty_stays(threshold: float) -> None:
    found = sureness(np.array([0, threshold - 1e-9, threshold, threshold + 1e-9, 1]), threshold)
    assert (found >= 0.5).tolist() == [False, False, True, True, True]
    assert (found[0], found[2], found[4]) == (0, 0.5, 1)


def test_a_half_changes_nothing_and_odds_are_over_the_thresholds() -> None:
    probabilities = np.linspace(0, 1, 11)
    assert sureness(probabilities, 0.5) == pytest.approx(probabilities)
    # odds 4 over odds 1.5
    assert sureness(np.array([0.8]), 0.6) == pytest.approx([8 / 11])
