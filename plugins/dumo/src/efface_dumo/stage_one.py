"""Stage 1 trains the branch (EPR)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

import efface
from efface.errors import unknown
from efface_dumo.bank import Bank
from efface_dumo.branch import ENCODER, Branch
from efface_dumo.training import Banks, History, Training, descend, rate_at

if TYPE_CHECKING:
    from efface.checkpoint import State

STAGE = "branch"
START = 0.01


def train_branch(training: Training, checkpoint: efface.Checkpoint) -> tuple[Banks, History]:
    """Train the student's branch in place; its modulation stays as it is.

    Returns the latents as they are at the end, for stage 2, and the losses. With a checkpoint of the same training
    it goes on from there, to the same bits.
    """
    settings = training.settings
    trained = trained_parameters(training.student.branch, settings.freeze)
    optimizer = _optimizer(training, trained)
    found = checkpoint.load()
    if found is None:
        banks, losses, done = training.banks(settings.trajectories, "bank"), History([], []), 0
    else:
        banks, losses, done = _restored(training, optimizer, found)
    for step in range(done, settings.steps):
        _step(training, optimizer, banks, losses, step)
        training.tell(step + 1, settings.steps, STAGE, losses)
        if (step + 1) % settings.checkpoint_every == 0 or step + 1 == settings.steps:
            _save(training, checkpoint, optimizer, banks, losses)
    training.student.branch.requires_grad_(False)
    return banks, losses


def trained_parameters(branch: Branch, freeze: tuple[str, ...]) -> list[nn.Parameter]:
    """The branch's parameters that take gradients from now on: all but those of the frozen parts.

    BadSetting for a part that the encoder does not have.
    """
    parts = [name for name, _ in branch.encoder.named_modules()]
    for part in freeze:
        if part not in parts:
            raise efface.BadSetting(f"freeze: {unknown('part', part, dict(branch.encoder.named_children()), 'it has')}")
    frozen = tuple(f"{ENCODER}.{part}." for part in freeze)
    found = [weight for name, weight in branch.named_parameters() if not name.startswith(frozen)]
    for weight in found:
        weight.requires_grad_(True)
    return found


def _optimizer(training: Training, trained: list[nn.Parameter]) -> torch.optim.Optimizer:
    adam = torch.optim.Adam(trained, lr=training.settings.rate, fused=True)
    prepared: torch.optim.Optimizer = training.accelerator.prepare_optimizer(adam, device_placement=False)
    return prepared


def _step(training: Training, optimizer: torch.optim.Optimizer, banks: Banks, losses: History, step: int) -> None:
    settings = training.settings
    if settings.refresh_every and step and step % settings.refresh_every == 0:
        _refresh(training, banks, step)
    given = training.lesson(banks, settings.batch, f"branch {step}", retain=settings.retain_weight > 0)

    weight = settings.retain_weight * ramped(step, settings.ramp * settings.steps)

    def loss() -> Tensor:
        erase, retain = given.losses(training.predicted(given))
        losses.add(erase.detach(), retain.detach())
        return erase + weight * retain

    descend(training, optimizer, rate_at(step, settings.steps, settings.rate, settings.schedule), loss)


def ramped(step: int, length: float) -> float:
    """The share of the weight of kept prompts that counts in a step: from a hundredth to all, by equal factors.

    What the branch learns first acts on every prompt; held back from the start, it learns nothing.
    """
    return float(START ** (1 - min(1.0, step / length))) if length else 1.0


def _refresh(training: Training, banks: Banks, step: int) -> None:
    """Replace the oldest of the erased prompts' trajectories by what the edited model makes of them now."""
    count, bank = training.settings.refresh, banks.erased
    turn = step // training.settings.refresh_every - 1
    rows = torch.arange(turn * count, (turn + 1) * count) % len(bank.prompts)
    inputs, _ = training.trajectories(training.prompts.erased[bank.prompts[rows]], f"refresh {step}", edited=True)
    bank.replace(rows, inputs)


def _save(
    training: Training,
    checkpoint: efface.Checkpoint,
    optimizer: torch.optim.Optimizer,
    banks: Banks,
    losses: History,
) -> None:
    tensors = {f"branch.{name}": tensor for name, tensor in training.student.branch.state_dict().items()}
    for side, bank in vars(banks).items():
        tensors |= {f"{side}.{name}": tensor for name, tensor in vars(bank).items()}
    training.save(checkpoint, optimizer, tensors, losses)


def _restored(training: Training, optimizer: torch.optim.Optimizer, found: State) -> tuple[Banks, History, int]:
    with torch.no_grad():
        for name, weight in training.student.branch.named_parameters():
            weight.copy_(found.tensors[f"branch.{name}"])
    banks = Banks(*(Bank(**_placed(found.part(f"{side}."), training.device)) for side in ("erased", "kept")))
    losses = training.restored(optimizer, found)
    return banks, losses, len(losses.erase)


def _placed(parts: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: tensor if name == "prompts" else tensor.to(device) for name, tensor in parts.items()}
