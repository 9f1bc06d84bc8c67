"""First stage: an autoencoder for 64 x 64 pictures, trained on 32 x 32 crops."""

from __future__ import annotations

import torch
from diffusers import AutoencoderTiny
from torch import Tensor
from torch.nn.functional import l1_loss, mse_loss

from efface_picturebook.loop import batch_indices, generator

CROP = 32
GRID = 4  # crops start where cells of the latent grid start
LATENT_NOISE = 0.04
TIDINESS = 0.02


def crops(pictures: Tensor, seed: int, step: int, batch: int) -> Tensor:
    """A batch of random crops of uint8 pictures (N, 3, H, W), as floats from -1 to 1."""
    chosen = batch_indices(seed, step, count=len(pictures), batch=batch)
    places = (pictures.shape[-1] - CROP) // GRID + 1
    corners = torch.randint(places, (batch, 2), generator=generator(seed, step)) * GRID
    cut = [
        pictures[i, :, y : y + CROP, x : x + CROP] for i, (y, x) in zip(chosen.tolist(), corners.tolist(), strict=True)
    ]
    return torch.stack(cut).float() / 127.5 - 1


def gradients(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Differences of neighbouring pixels, down and across."""
    return pictures.diff(dim=-2), pictures.diff(dim=-1)


def untidiness(latents: Tensor) -> Tensor:
    """How far the latent channels (B, C, H, W) are from zero mean, unit variance and no correlation."""
    flat = latents.transpose(0, 1).flatten(1)
    mean = flat.mean(1)
    centred = flat - mean[:, None]
    covariance = centred @ centred.T / flat.shape[1]
    return mean.square().mean() + (covariance - torch.eye(len(flat), device=flat.device)).square().mean()


def reconstruction_loss(vae: AutoencoderTiny, pictures: Tensor, noise: Tensor) -> Tensor:
    """L1 + squared error + a quarter of the L1 between image gradients + a little tidiness of the latents."""
    latents = vae.encoder(pictures)
    drawn = vae.decoder(latents + LATENT_NOISE * noise)
    edges = sum(l1_loss(a, b) for a, b in zip(gradients(drawn), gradients(pictures), strict=True))
    return l1_loss(drawn, pictures) + mse_loss(drawn, pictures) + 0.25 * edges + TIDINESS * untidiness(latents)


@torch.no_grad()
def encode(vae: AutoencoderTiny, pictures: Tensor, device: torch.device, batch: int = 64) -> Tensor:
    """Latents of uint8 pictures, unscaled."""
    parts = [vae.encoder(part.to(device).float() / 127.5 - 1).cpu() for part in torch.split(pictures, batch)]
    return torch.cat(parts)
