"""Stage 2: the adapter learns to make the U-Net predict for the concept what it predicts for the anchor."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

import efface
from efface_realera.adapter import Adapter
from efface_realera.editing import edited
from efface_realera.latents import LatentBank, Trajectories
from efface_realera.miner import Miner
from efface_realera.prompts import Prompts
from efface_realera.rows import joined

SAVED_EVERY = 10


@dataclass(frozen=True)
class Schedule:
    """How stage 2 goes; the method's settings say what each is."""

    steps: int
    rate: float
    near: int
    beyond: int
    keep: int
    beyond_loss: float
    refreshes: int
    batch_size: int
    trajectories: Trajectories

    @property
    def renewals(self) -> list[int]:
        """The steps before which the bank is made: the first, and evenly spaced ones."""
        return [self.steps * turn // (self.refreshes + 1) for turn in range(self.refreshes + 1)]


@dataclass(frozen=True, eq=False)
class Batch:
    """The conditions of one step: what becomes the anchor, the anchor, what stays; weights (n,) of first and last."""

    moving: efface.Encoded
    anchor: efface.Encoded
    still: efface.Encoded
    weights: Tensor


@dataclass(frozen=True, eq=False)
class Trainer:
    """Trains an adapter on top of the map of stage 1; all randomness of a step follows from the seed and its number."""

    model: efface.Model
    prompts: Prompts
    miner: Miner
    keep: efface.Encoded | None
    change: efface.LowRank | efface.Dense
    adapter: Adapter
    schedule: Schedule
    run: efface.Run

    def train(self, checkpoint: efface.Checkpoint) -> list[float]:
        """Trains to the end, from the checkpoint if there is one, and returns the loss of every step."""
        parameters = list(self.adapter.parameters())
        optimizer = torch.optim.AdamW(parameters, lr=self.schedule.rate, weight_decay=0.0)
        losses, bank = self._restored(checkpoint, optimizer)
        for step in range(len(losses), self.schedule.steps):
            if bank is None or step in self.schedule.renewals:
                bank = self._bank(step)
            losses.append(self._step(step, bank, optimizer))
            done = step + 1
            if done % SAVED_EVERY == 0 or done == self.schedule.steps:
                checkpoint.save(self._state(bank, optimizer), losses)
            self.run.progress(done, self.schedule.steps, f"aligning noise, loss {losses[-1]:.4f}")
        return losses

    def _step(self, step: int, bank: LatentBank, optimizer: torch.optim.Optimizer) -> float:
        generator = self.run.generator(stream=f"realera step {step}")
        place = int(torch.randint(len(bank), (1,), generator=generator))
        batch = self._batch(int(bank.rows[place]), generator)
        optimizer.zero_grad()
        x, t = bank.latents[place : place + 1], bank.timesteps[place]
        loss = self._backward(batch, self._goals(batch, x, t), x, t)
        if not math.isfinite(loss):
            raise efface.EffaceError(f"The loss of step {step} is {loss}: lower rate, or use a wider dtype")
        optimizer.step()
        return loss

    def _batch(self, row: int, generator: Generator) -> Batch:
        near = self.miner.near(row, self.schedule.near, generator)
        beyond = self.miner.beyond(row, self.schedule.beyond, generator)
        moving = joined([self.prompts.targets.rows([row]), near])
        still = joined([beyond, *self._kept(generator)])
        moved, stays = len(moving.prompts), len(still.prompts)
        weights = [1 / moved] * moved + [self.schedule.beyond_loss / max(stays, 1)] * stays
        return Batch(moving, self.prompts.anchors.rows([row]), still, torch.tensor(weights))

    def _kept(self, generator: Generator) -> list[efface.Encoded]:
        if self.keep is None:
            return []
        chosen = torch.randperm(len(self.keep.prompts), generator=generator)[: self.schedule.keep]
        return [self.keep.rows(chosen.tolist())]

    @torch.no_grad()
    def _goals(self, batch: Batch, x: Tensor, t: Tensor) -> Tensor:
        """What the model predicts without any edit: for all that moves the anchor's prediction, else its own."""
        conditions = joined([batch.anchor, batch.still])
        parts = torch.split(torch.arange(len(conditions.prompts)), self.schedule.batch_size)
        found = torch.cat([self._predicted(conditions, part, x, t) for part in parts])
        return torch.cat([found[:1].expand(len(batch.moving.prompts), *x.shape[1:]), found[1:]])

    def _backward(self, batch: Batch, goals: Tensor, x: Tensor, t: Tensor) -> float:
        """Mean over concept and neighbours |eps(x_t, c) - eps_0(x_t, a)|^2, plus beyond_loss times the mean over
        what stays |eps(x_t, b) - eps_0(x_t, b)|^2, per element; leaves the gradients in the adapter.

        Reconstruction: the port's loss has these two parts, but leads the concept away from itself; the reviews of
        the paper say that the anchor is the goal. The gradient is that of sums over elements in place of means: Adam
        does not tell them apart, and in half precision the means would vanish.
        """
        conditions, total = joined([batch.moving, batch.still]), 0.0
        with torch.enable_grad(), edited(self.model, self.change, self.adapter):
            for part in torch.split(torch.arange(len(goals)), self.schedule.batch_size):
                error = self._predicted(conditions, part, x, t).float() - goals[part].float()
                weights, square = batch.weights[part].to(error.device), error.square().flatten(1)
                torch.autograd.backward(weights @ square.sum(1))
                total += float(weights @ square.detach().mean(1))
        return total

    def _predicted(self, conditions: efface.Encoded, part: Tensor, x: Tensor, t: Tensor) -> Tensor:
        return self.model.predict(x.expand(len(part), *x.shape[1:]), t, conditions.rows(part.tolist()))

    def _bank(self, step: int) -> LatentBank:
        def tell(done: int, total: int) -> None:
            self.run.progress(done, total, "drawing latents")

        generator = self.run.generator(stream=f"realera latents {step}")
        with edited(self.model, self.change, self.adapter):
            return self.schedule.trajectories.bank(self.model, self.prompts.targets, generator, tell)

    def _state(self, bank: LatentBank, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
        trained = {f"parameter.{index}": parameter for index, parameter in enumerate(self.adapter.parameters())}
        moments = {f"optimizer.{name}": value for name, value in efface.optimizer_tensors(optimizer).items()}
        return trained | moments | bank.tensors()

    def _restored(
        self, checkpoint: efface.Checkpoint, optimizer: torch.optim.Optimizer
    ) -> tuple[list[float], LatentBank | None]:
        found = checkpoint.load()
        if found is None:
            return [], None
        with torch.no_grad():
            for index, parameter in enumerate(self.adapter.parameters()):
                parameter.copy_(found.tensors[f"parameter.{index}"])
        efface.restore_optimizer(optimizer, found.part("optimizer."))
        return list(found.facts), LatentBank.of(found.tensors, self.model.device)
