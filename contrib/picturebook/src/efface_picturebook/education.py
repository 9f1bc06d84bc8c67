"""Third stage: the detector's gallery, its training, and its operating point."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from torch import Tensor

from efface_picturebook import checkpoint, gallery
from efface_picturebook.autoencoder import encode
from efface_picturebook.detector import Detector
from efface_picturebook.gallery import Gallery
from efface_picturebook.lesson import Lesson, exam

SCENES, CLUTTER = 11_000, 1_500
ROUND_TRIPS, RUINS = 3_000, 600
CALIBRATION = 2_000
FALSE_POSITIVES, MISSES = 0.005, 0.02
RECKONED_ON = 30


def collection(folder: Path, vae: Callable[[], AutoencoderTiny], device: torch.device, seed: int) -> Gallery:
    """The pictures to learn from, made once and kept in `folder`."""
    path = folder / "gallery.pt"
    key = [seed, SCENES, CLUTTER, ROUND_TRIPS, RUINS]
    if path.exists():
        stored = checkpoint.load(path)
        if stored["key"] == key:
            return Gallery(**stored["fields"])
    made = _collected(vae().to(device), device, seed)
    checkpoint.save(path, {"key": key, "fields": vars(made)})
    return made


def _collected(vae: AutoencoderTiny, device: torch.device, seed: int) -> Gallery:
    """Scenes, the first of them through the autoencoder and back; clutter; and latents that are mostly noise."""
    scenes = gallery.hang(gallery.scene(f"{seed}-detector", i) for i in range(SCENES))
    source = torch.Generator().manual_seed(seed)
    latents = encode(vae, scenes.pictures[:ROUND_TRIPS], device)
    shaken = latents + torch.randn(latents.shape, generator=source) * _amounts(ROUND_TRIPS, 0.35, source)
    scenes.pictures[:ROUND_TRIPS] = _decoded(vae, shaken, device)
    some = latents[:RUINS]
    signal = _amounts(RUINS, 0.3, source)
    noise = torch.randn(some.shape, generator=source) * some.std()
    ruins = _decoded(vae, signal * some + (1 - signal.square()).sqrt() * noise, device)
    return gallery.together(scenes, gallery.clutter(f"{seed}-clutter", CLUTTER), gallery.nothing(ruins))


def _amounts(count: int, most: float, source: torch.Generator) -> Tensor:
    return most * torch.rand(count, 1, 1, 1, generator=source)


@torch.no_grad()
def _decoded(vae: AutoencoderTiny, latents: Tensor, device: torch.device, batch: int = 32) -> Tensor:
    """Unscaled latents as uint8 pictures."""
    parts = [vae.decoder(part.to(device)).cpu() for part in torch.split(latents, batch)]
    return ((torch.cat(parts) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


@torch.no_grad()
def reckon(detector: Detector, taught: Callable[[int], Lesson], device: torch.device) -> None:
    """Set the running statistics of the normalisations to those of the averaged weights."""
    detector.train()
    norms = [module for module in detector.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over what follows
    for step in range(RECKONED_ON):
        detector(taught(step).pictures.to(device))
    detector.eval()


@torch.no_grad()
def calibrate(detector: Detector, device: torch.device, seed: int) -> None:
    """Put the operating point of every presence where it belongs, on pictures that nothing else is judged by."""
    scenes = gallery.hang(gallery.scene(f"{seed}-calibration", i) for i in range(CALIBRATION))
    distorted = exam(scenes, torch.Generator().manual_seed(seed))
    parts = zip(*(torch.split(side, 100) for side in (distorted.pictures, distorted.presence)), strict=True)
    logits = torch.cat([detector(pictures.to(device)).presence.cpu() for pictures, _ in parts])
    for k, counted in enumerate(distorted.counts.T.bool()):
        shown = distorted.presence[:, k].bool()
        detector.offset[k] -= operating_point(logits[shown & counted, k], logits[~shown & counted, k])


def operating_point(present: Tensor, absent: Tensor) -> float:
    """Halfway between almost all absent and almost all present logits, but never where too many absent ones lie."""
    low, high = absent.quantile(1 - FALSE_POSITIVES).item(), present.quantile(MISSES).item()
    return max(low, (low + high) / 2)
