"""Stage 2 on a model: trains the adapter and hands back what it has become."""

from __future__ import annotations

from typing import TYPE_CHECKING

import efface
from efface.fingerprint import fingerprint
from efface.settings import as_dict
from efface_realera.adapter import Adapter
from efface_realera.latents import Trajectories
from efface_realera.mapping import Mapped
from efface_realera.mining import Mined
from efface_realera.prompts import Prompts
from efface_realera.training import Schedule, Trainer

if TYPE_CHECKING:
    from efface_realera.realera import RealEra


def aligned(
    settings: RealEra,
    model: efface.Model,
    prompts: Prompts,
    keep: efface.Encoded | None,
    mined: Mined,
    first: Mapped,
    run: efface.Run,
) -> tuple[dict[str, efface.LowRank], list[float]]:
    """The low-rank change of every cross-attention key and value, and the loss of every step."""
    points = model.points("cross_attn.k", "cross_attn.v")
    adapter = Adapter(points, settings.rank, run.generator(stream="realera adapter"), model.device, first.still)
    trainer = Trainer(model, prompts, mined.miner, keep, first.delta, adapter, schedule(settings), run)
    losses = trainer.train(_checkpoint(settings, model, prompts, keep, first, run))
    return {point.name: adapter.delta(point.name) for point in points}, losses


def schedule(settings: RealEra) -> Schedule:
    return Schedule(
        steps=settings.steps,
        rate=settings.rate,
        near=settings.step_near,
        beyond=settings.step_beyond,
        keep=settings.step_keep,
        beyond_loss=settings.beyond_loss,
        refreshes=settings.refreshes,
        batch_size=settings.batch_size,
        trajectories=Trajectories(
            settings.trajectories, settings.times, settings.denoising_steps, settings.guidance, settings.batch_size
        ),
    )


def _checkpoint(
    settings: RealEra,
    model: efface.Model,
    prompts: Prompts,
    keep: efface.Encoded | None,
    first: Mapped,
    run: efface.Run,
) -> efface.Checkpoint:
    """The checkpoint of this very run: settings, seed, scheduler, weights, embeddings and map all count."""
    base = fingerprint(model.pipe, model.points("cross_attn.k", "cross_attn.v")) if run.folder else {}
    scheduler = {name: str(value) for name, value in model.pipe.scheduler.config.items()}
    encoded = [each.hidden for each in (prompts.targets, prompts.anchors, keep) if each is not None]
    return run.checkpoint(
        "realera", as_dict(settings), run.seed, scheduler, base, *encoded, first.delta.dense(), first.still
    )
