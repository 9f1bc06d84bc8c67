"""How long a demonstration may take, and which fits there is time for."""

from __future__ import annotations

from dataclasses import dataclass

USUAL = 600.0
TRIFLE = 1 / 60


@dataclass(frozen=True)
class Budget:
    """Seconds for everything from loading on; with `refit` methods are fitted however long it takes."""

    seconds: float = USUAL
    refit: bool = False

    def left(self, spent: float, showing: float, waiting: int) -> float:
        """Seconds that a fit may take, at least 0.

        The budget, less what is `spent`, less what pictures and figures of the `waiting` methods will take (the one
        to be fitted among them), `showing` seconds each. That is the number of pictures per method at the pace of
        the base pictures, which this machine has just made; other fits that are to come are not allowed for, as
        methods are fitted in order of their cost.
        """
        return max(0.0, self.seconds - spent - showing * waiting)

    def allows(self, cost: float, left: float) -> bool:
        """Whether to fit a method that says it takes `cost` seconds on the embedded model.

        A sixtieth of the budget is always granted: on a machine so slow that pictures take all the time, leaving
        out a fit of seconds would save nothing and show nothing.
        """
        return self.refit or cost <= max(left, TRIFLE * self.seconds)
