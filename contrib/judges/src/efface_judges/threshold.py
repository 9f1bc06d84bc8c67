"""A judge's probability on the scale of a suite, where a concept counts as shown from 0.5 on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def sureness(probability: NDArray[np.float64], threshold: float) -> NDArray[np.float64]:
    """Rising from 0 to 1 with the probability, 0.5 at the threshold: its odds over the threshold's odds."""
    shown, hidden = probability * (1 - threshold), (1 - probability) * threshold
    return np.where(probability == threshold, 0.5, shown / (shown + hidden))
