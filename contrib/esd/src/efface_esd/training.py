"""The training of ESD."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

import efface
from efface_esd.bank import Bank, Prompts, rows, target, walked
from efface_esd.edited import Edited
from efface_esd.layers import trained

if TYPE_CHECKING:
    from efface_esd.esd import ESD

MILESTONES = 10
CHANGE, MOMENT = "change ", "moment "


@dataclass(frozen=True)
class Training:
    """One training under some settings; `changes` are what it learns, one for each layer."""

    settings: ESD
    model: efface.Model
    run: efface.Run
    prompts: Prompts
    edited: Edited
    changes: dict[str, Tensor]
    checkpoint: efface.Checkpoint

    @classmethod
    def of(cls, settings: ESD, model: efface.Model, request: efface.Request, run: efface.Run) -> Training:
        edited = Edited(model.unet, trained(model, settings.layers))
        changes = {name: change.requires_grad_() for name, change in edited.zeros().items()}
        prompts = Prompts.of(model, request, settings.towards == "anchor")
        base = [prompts.erased.hidden, prompts.start.hidden, *edited.base.values()]
        checkpoint = run.checkpoint("esd", asdict(settings), request.to_json(), run.seed, base)
        return cls(settings, model, run, prompts, edited, changes, checkpoint)

    def run_through(self) -> list[float]:
        """All steps from the last checkpoint on; the loss over the training, ten means."""
        optimizer = torch.optim.Adam(self.changes.values(), self.settings.rate)
        losses = self.restored(optimizer)
        saved = len(losses)
        for step in range(len(losses), self.settings.steps):
            if step % self.settings.renew == 0:
                if step - saved >= self.settings.checkpoint:
                    self.save(optimizer, losses)
                    saved = step
                bank = self.bank(step)
            self.run.progress(step, self.settings.steps, "training")
            losses.append(self.step(bank, optimizer, self.run.generator(stream=f"rows {step}")))
        self.run.progress(self.settings.steps, self.settings.steps, "training")
        return means(losses)

    def save(self, optimizer: torch.optim.Optimizer, losses: list[float]) -> None:
        """Keep the training as it is before new trajectories: these are then walked again by the same model."""
        moments = {MOMENT + name: tensor for name, tensor in efface.optimizer_tensors(optimizer).items()}
        self.checkpoint.save({CHANGE + name: change for name, change in self.changes.items()} | moments, losses)

    def restored(self, optimizer: torch.optim.Optimizer) -> list[float]:
        """Put back what was kept, if anything was; the losses of its steps."""
        state = self.checkpoint.load()
        if state is None:
            return []
        for name, change in state.part(CHANGE).items():
            self.changes[name].data.copy_(change)
        efface.restore_optimizer(optimizer, state.part(MOMENT))
        losses: list[float] = state.facts
        return losses

    def bank(self, step: int) -> Bank:
        """Rows of new trajectories, walked by the model as it is edited at this step."""
        settings, generator = self.settings, self.run.generator(stream=f"trajectories {step}")
        places = torch.randint(len(self.prompts.erased.prompts), (settings.trajectories,), generator=generator)
        seeds = torch.randint(2**31, (settings.trajectories,), generator=generator).tolist()
        walk = partial(
            walked,
            self.model,
            rows(self.prompts.erased, places),
            self.model.noise(seeds),
            steps=settings.sampling,
            guidance=settings.guidance,
            until=self.until(generator),
        )
        with torch.no_grad():
            latents, timesteps = self.edited.run(self.changes, walk)
        if settings.renew == 1:
            latents, timesteps = latents[-1:], timesteps[-1:]
        return Bank(latents.flatten(0, 1), timesteps.flatten(0, 1), places.repeat(len(latents)))

    def until(self, generator: torch.Generator) -> int:
        """Where trajectories end: at the last step, or, where they serve one step of the training, anywhere."""
        if self.settings.renew > 1:
            return 0
        schedule = self.model.pipe.scheduler.config.num_train_timesteps
        return int(
            torch.randint(
                schedule * (self.settings.sampling - 1) // self.settings.sampling + 1, (), generator=generator
            )
        )

    def step(self, bank: Bank, optimizer: torch.optim.Optimizer, generator: torch.Generator) -> float:
        """One step down the gradient of the changes."""
        part = bank.drawn(self.settings.batch, generator)
        erased, start = (rows(encoded, part.prompts) for encoded in (self.prompts.erased, self.prompts.start))
        with torch.no_grad():
            base = self.model.predict(part.latents, part.timesteps, erased).float()
            wanted = target(
                self.model.predict(part.latents, part.timesteps, start).float(), base, self.settings.negative
            )
        found = self.edited.run(self.changes, partial(self.model.predict, part.latents, part.timesteps, erased))
        loss = mse_loss(found.float(), wanted)
        gradients = torch.autograd.grad(loss, list(self.changes.values()))
        for change, gradient in zip(self.changes.values(), gradients, strict=True):
            change.grad = gradient
        optimizer.step()
        return float(loss.detach())


def means(losses: list[float]) -> list[float]:
    """The loss in ten parts of the training, four digits each."""
    size = -(-len(losses) // MILESTONES)
    parts = [losses[first : first + size] for first in range(0, len(losses), size)]
    return [float(f"{sum(part) / len(part):.4g}") for part in parts]
