"""The stages of training, each of which reads what the one before it left in the output folder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, cast

import torch
from accelerate import Accelerator
from diffusers import AutoencoderTiny, StableDiffusionPipeline
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from efface_picturebook import (
    autoencoder,
    checkpoint,
    denoiser,
    education,
    examples,
    export,
    gallery,
    loop,
    networks,
    sheet,
    tokenizer,
)
from efface_picturebook.detector import Detector
from efface_picturebook.examples import Examples
from efface_picturebook.lesson import Lesson, lesson, loss
from efface_picturebook.schedule import Plan

log = logging.getLogger(__name__)

Trained = TypeVar("Trained", bound=nn.Module)

AUTOENCODER_RATE = 1e-3
AUTOENCODER_BATCH = 24
DETECTOR_RATE = 3e-3
DETECTOR_BATCH = 64


@dataclass(frozen=True)
class Job:
    """What to train, on what, to where."""

    out: Path
    seed: int
    pictures: int
    batch: int
    rate: float
    steps: int
    autoencoder_steps: int
    accelerator: Accelerator
    detector_steps: int = 1600

    @property
    def device(self) -> torch.device:
        """Where the networks run."""
        device: torch.device = self.accelerator.device
        return device


def train_autoencoder(job: Job, stop_at: int | None = None) -> loop.Run:
    """Train the autoencoder on crops of rendered pictures."""
    pictures = examples.pictures(job.seed, job.pictures // 2)
    log.info("drew %d pictures", len(pictures))
    networks.seeded(job.seed)
    run = loop.Run.start(_placed(networks.autoencoder(), job), AUTOENCODER_RATE)
    plan = Plan(job.autoencoder_steps, AUTOENCODER_RATE, warm_up=200, decay=0.5)

    def loss_at(step: int) -> Tensor:
        cut = autoencoder.crops(pictures, job.seed, step, AUTOENCODER_BATCH)
        side = autoencoder.CROP // 4
        shape = (len(cut), networks.LATENT_CHANNELS, side, side)
        noise = torch.randn(shape, generator=loop.generator(job.seed + 2, step))
        return autoencoder.reconstruction_loss(run.module, cut.to(job.device), noise.to(job.device))

    loop.train(run, plan, job.out / "autoencoder", loss_at, job.accelerator, stop_at=stop_at)
    return run


def train_denoiser(job: Job, stop_at: int | None = None) -> loop.Run:
    """Train U-Net and text encoder on latents of rendered pictures and their captions."""
    words = tokenizer.build()
    data = _examples(job, words)
    nothing = examples.token_ids(words, [""])
    alphas = networks.scheduler().alphas_cumprod
    run = loop.Run.start(_placed(_new_denoiser(job, words), job), job.rate)
    plan = Plan(job.steps, job.rate)

    def loss_at(step: int) -> Tensor:
        return denoiser.noise_loss(run.module, data, nothing, alphas, job.seed, step, job.batch)

    loop.train(run, plan, job.out / "unet", loss_at, job.accelerator, stop_at=stop_at)
    return run


def train_detector(job: Job, stop_at: int | None = None) -> Detector:
    """Train the detector, find its operating point, and write it to `out/detector.safetensors`."""
    folder = job.out / "detector"
    pictures = education.collection(folder, lambda: _trained_autoencoder(job), job.device, job.seed)
    empties = gallery.empties()
    log.info("collected %d pictures", len(pictures))
    networks.seeded(job.seed)
    run = loop.Run.start(_placed(Detector(), job), DETECTOR_RATE)
    plan = Plan(job.detector_steps, DETECTOR_RATE, warm_up=100, decay=0.6)

    def taught(step: int) -> Lesson:
        chosen = loop.batch_indices(job.seed, step, count=len(pictures), batch=DETECTOR_BATCH)
        return lesson(pictures[chosen], empties, loop.generator(job.seed, step))

    def loss_at(step: int) -> Tensor:
        batch = taught(step).to(job.device)
        return loss(run.module(batch.pictures), batch)

    loop.train(run, plan, folder, loss_at, job.accelerator, stop_at=stop_at)
    detector = cast(Detector, loop.with_weights(run.module, run.average))
    education.reckon(detector, taught, job.device)
    education.calibrate(detector, job.device, job.seed)
    export.write_detector(detector, job.out / "detector.safetensors")
    return detector


def export_pipeline(job: Job) -> None:
    """Write the averaged weights as a pipeline to `out/pipeline`."""
    export.write(assembled(job), job.out / "pipeline")


def draw_sheet(job: Job) -> None:
    """Write `out/sheet.png` from the latest averaged weights."""
    pipeline = assembled(job)
    pipeline.set_progress_bar_config(disable=True)
    sheet.contact_sheet(pipeline).save(job.out / "sheet.png", optimize=True)


def assembled(job: Job) -> StableDiffusionPipeline:
    """The pipeline of the latest averaged weights."""
    words = tokenizer.build()
    vae = _trained_autoencoder(job)
    vae.register_to_config(scaling_factor=_scaling_factor(job))
    return export.assemble(vae, _latest(_new_denoiser(job, words), job.out / "unet"), words).to(job.device)


STAGES: Mapping[str, Callable[[Job], object]] = MappingProxyType(
    {
        "autoencoder": train_autoencoder,
        "unet": train_denoiser,
        "detector": train_detector,
        "export": export_pipeline,
        "sheet": draw_sheet,
    }
)


def _placed(module: Any, job: Job) -> Any:
    return module.train().to(job.device, memory_format=torch.channels_last)


def _new_denoiser(job: Job, words: PreTrainedTokenizerBase) -> denoiser.Denoiser:
    networks.seeded(job.seed)
    return denoiser.Denoiser(networks.unet(), networks.text_encoder(words))


def _trained_autoencoder(job: Job) -> AutoencoderTiny:
    return _latest(networks.autoencoder(), job.out / "autoencoder")


def _latest(module: Trained, folder: Path) -> Trained:
    """The module with the averaged weights of the latest checkpoint, in evaluation mode."""
    average = checkpoint.load(folder / loop.LATEST)["average"]
    return loop.with_weights(module, average).eval()


def _examples(job: Job, words: PreTrainedTokenizerBase) -> Examples:
    """Scaled latents and token ids, encoded once per seed and count."""
    stored = _encoded(job)
    log.info("scaling factor %.4f", stored["scaling_factor"])
    ids = examples.caption_ids(words, job.seed, job.pictures)
    return Examples(stored["latents"] * stored["scaling_factor"], ids)


def _encoded(job: Job) -> dict[str, Any]:
    """Unscaled latents and the factor that gives them unit variance, kept in `out/latents.pt`."""
    path = job.out / "latents.pt"
    key = [job.seed, job.pictures, checkpoint.load(job.out / "autoencoder" / loop.LATEST)["step"]]
    if path.exists():
        stored = checkpoint.load(path)
        if stored["key"] == key:
            return stored
    vae = _placed(_trained_autoencoder(job), job).eval()
    latents = autoencoder.encode(vae, examples.pictures(job.seed, job.pictures), job.device)
    log.info("encoded %d pictures, latent means %s", len(latents), latents.mean((0, 2, 3)).tolist())
    stored = {"key": key, "latents": latents, "scaling_factor": 1 / latents.std().item()}
    checkpoint.save(path, stored)
    return stored


def _scaling_factor(job: Job) -> float:
    factor: float = _encoded(job)["scaling_factor"]
    return factor
