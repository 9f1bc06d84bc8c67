"""One resumable training loop: interrupted and resumed, it ends with the same bits.

Whatever a step draws at random comes from a generator seeded by (seed, step), see `generator`. So the random
state of a run *is* its step, and a checkpoint holds weights, optimizer, moving average and step.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from efface_picturebook import checkpoint
from efface_picturebook.schedule import Plan

log = logging.getLogger(__name__)

Trained = TypeVar("Trained", bound=nn.Module)

LATEST = "latest.pt"
BEFORE_DECAY = "before-decay.pt"
DECAY_OF_AVERAGE = 0.998


def generator(seed: int, step: int) -> torch.Generator:
    """The source of everything random in one step."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def batch_indices(seed: int, step: int, *, count: int, batch: int) -> Tensor:
    """The examples of one step: every example once per epoch, in an order drawn per epoch."""
    if batch > count:
        raise ValueError(f"A batch of {batch} needs at least as many examples; there are {count}")
    per_epoch = count // batch
    epoch, place = divmod(step, per_epoch)
    order = torch.randperm(count, generator=generator(seed + 1, epoch))
    return order[place * batch : (place + 1) * batch]


@dataclass
class Run:
    """A module in training, with its optimizer and the moving average that will be exported."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    average: list[Tensor]
    step: int = 0
    loss: float = float("nan")

    @classmethod
    def start(cls, module: nn.Module, rate: float) -> Run:
        """A run at step 0."""
        optimizer = torch.optim.AdamW(module.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
        return cls(module, optimizer, [p.detach().clone() for p in module.parameters()])

    def state(self, plan: Plan) -> dict[str, Any]:
        """Everything needed to go on."""
        return {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "step": self.step,
            "loss": self.loss,
            "steps": plan.steps,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        for mine, saved in zip(self.average, state["average"], strict=True):
            mine.copy_(saved)
        self.step, self.loss = state["step"], state["loss"]


def resume_point(folder: Path, plan: Plan) -> Path | None:
    """The checkpoint to go on from: the latest, or, for a longer plan, the one before the decay began."""
    latest, before = folder / LATEST, folder / BEFORE_DECAY
    if not latest.exists():
        return None
    state = checkpoint.load(latest)
    decayed = state["step"] > Plan(state["steps"], plan.rate, plan.warm_up, plan.decay).decay_start
    if state["steps"] != plan.steps and decayed:
        return before
    return latest


def train(
    run: Run,
    plan: Plan,
    folder: Path,
    loss_at: Callable[[int], Tensor],
    accelerator: Accelerator,
    *,
    save_every: float = 180.0,
    stop_at: int | None = None,
) -> None:
    """Train to the end of the plan (or to `stop_at`), saving every `save_every` seconds."""
    _resume(run, plan, folder)
    end = plan.steps if stop_at is None else stop_at
    saved = time.monotonic()
    while run.step < end:
        if run.step == plan.decay_start:
            checkpoint.save(folder / BEFORE_DECAY, run.state(plan))
        _step(run, plan, loss_at(run.step), accelerator)
        if run.step % 25 == 0:
            log.info("step %d of %d, loss %.4f", run.step, plan.steps, run.loss)
        if time.monotonic() - saved > save_every:
            checkpoint.save(folder / LATEST, run.state(plan))
            saved = time.monotonic()
    checkpoint.save(folder / LATEST, run.state(plan))


def _resume(run: Run, plan: Plan, folder: Path) -> None:
    point = resume_point(folder, plan)
    if point is not None:
        run.restore(checkpoint.load(point))
        log.info("resumed %s at step %d", point.name, run.step)


def _step(run: Run, plan: Plan, loss: Tensor, accelerator: Accelerator) -> None:
    for group in run.optimizer.param_groups:
        group["lr"] = plan.rate_at(run.step)
    run.optimizer.zero_grad()
    accelerator.backward(loss)
    parameters = list(run.module.parameters())
    accelerator.clip_grad_norm_(parameters, 1.0)
    run.optimizer.step()
    keep = min(DECAY_OF_AVERAGE, (1 + run.step) / (10 + run.step))
    torch._foreach_lerp_(run.average, [p.detach() for p in parameters], 1 - keep)
    run.step += 1
    value = loss.item()
    run.loss = value if run.step == 1 else 0.98 * run.loss + 0.02 * value


@torch.no_grad()
def with_weights(module: Trained, weights: Sequence[Tensor]) -> Trained:
    """The module with its parameters, in order, set to `weights`."""
    for parameter, weight in zip(module.parameters(), weights, strict=True):
        parameter.copy_(weight)
    return module
