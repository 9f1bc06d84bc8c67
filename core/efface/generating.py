"""Pictures from prompts and seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from efface.errors import EffaceError
from efface.method import Progress, silent

if TYPE_CHECKING:
    from PIL.Image import Image


def generate(
    pipe: Any,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    steps: int = 20,
    guidance: float = 7.5,
    batch_size: int = 8,
    progress: Progress = silent,
    **pipeline_arguments: Any,
) -> list[Image]:
    """Every prompt with every seed, prompt by prompt, on the pipeline as it is now.

    Each picture has a generator of its own on the CPU, so neither batch size nor device changes its start noise.
    `pipeline_arguments` go to the pipeline as they are; the pipeline's own progress bar is off meanwhile.
    """
    import torch

    wanted = [(prompt, seed) for prompt in prompts for seed in seeds]
    batches = [wanted[first : first + batch_size] for first in range(0, len(wanted), batch_size)]
    images: list[Image] = []
    with _no_bar(pipe):
        for batch in batches:
            progress(len(images) * steps, len(wanted) * steps, "generating")
            arguments = {
                "num_inference_steps": steps,
                "guidance_scale": guidance,
                "callback_on_step_end": _ticking(progress, len(images), len(batch), len(wanted), steps),
            }
            images += pipe(
                prompt=[prompt for prompt, _ in batch],
                generator=[torch.Generator().manual_seed(seed) for _, seed in batch],
                **(arguments | pipeline_arguments),
            ).images
    progress(len(images) * steps, len(wanted) * steps, "generating")
    return images


def _ticking(progress: Progress, before: int, now: int, total: int, steps: int) -> Any:
    """A pipeline callback that counts steps over all pictures; schedulers of higher order call it more often."""

    def tick(_pipe: Any, step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        progress(before * steps + now * min(step + 1, steps), total * steps, "generating")
        return tensors

    return tick


def check_steps(pipe: Any, steps: int) -> None:
    """EffaceError for more steps than the pipeline's scheduler has timesteps."""
    most = pipe.scheduler.config.get("num_train_timesteps")
    if most is not None and steps > most:
        raise EffaceError(f"This model has {most} timesteps: {steps} steps are more than that")


@contextmanager
def _no_bar(pipe: Any) -> Iterator[None]:
    absent = object()
    before = getattr(pipe, "_progress_bar_config", absent)
    pipe.set_progress_bar_config(disable=True)
    try:
        yield
    finally:
        if before is absent:
            del pipe._progress_bar_config
        else:
            pipe._progress_bar_config = before
