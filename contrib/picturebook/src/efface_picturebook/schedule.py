"""The learning rate over a run: warm-up, constant, then a linear decay that matters as much as the steps."""

from __future__ import annotations

from dataclasses import dataclass

FLOOR = 0.02


@dataclass(frozen=True)
class Plan:
    """How long to train and how fast."""

    steps: int
    rate: float
    warm_up: int = 100
    decay: float = 0.4

    @property
    def decay_start(self) -> int:
        """The first step of the decay: the point from which a longer run can continue."""
        return self.steps - round(self.steps * self.decay)

    def rate_at(self, step: int) -> float:
        """The learning rate of step `step`, counted from 0."""
        if step < self.warm_up:
            return self.rate * (step + 1) / self.warm_up
        if step < self.decay_start:
            return self.rate
        left = (self.steps - step) / (self.steps - self.decay_start)
        return self.rate * (FLOOR + (1 - FLOOR) * left)
