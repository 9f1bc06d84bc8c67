"""The sampler of an evaluation: DPM-Solver++ of second order (Lu et al., arXiv:2211.01095)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def fast_sampler(pipe: Any) -> Iterator[Any]:
    """The pipeline samples by DPM-Solver++ on its own noise schedule; afterwards it has its own scheduler again."""
    from diffusers import DPMSolverMultistepScheduler

    # Past the pipeline's own __setattr__, which would note the change in its config.
    parts, own = vars(pipe), pipe.scheduler
    parts["scheduler"] = DPMSolverMultistepScheduler.from_config(own.config)
    try:
        yield parts["scheduler"]
    finally:
        parts["scheduler"] = own
