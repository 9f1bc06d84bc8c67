"""Second stage: U-Net and text encoder, trained together to predict the noise."""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel

from efface_picturebook.examples import CAPTIONS, Examples
from efface_picturebook.loop import batch_indices, generator

DROPPED_CAPTIONS = 0.1
GAMMA = 5.0


class Denoiser(nn.Module):
    """The two networks that learn together."""

    def __init__(self, unet: UNet2DConditionModel, text_encoder: CLIPTextModel) -> None:
        super().__init__()
        self.unet = unet
        self.text_encoder = text_encoder

    def forward(self, noisy: Tensor, timesteps: Tensor, ids: Tensor) -> Tensor:
        """The noise seen in `noisy` (B, 4, 16, 16), given captions as token ids (B, 32)."""
        text = self.text_encoder(ids)[0]
        noise: Tensor = self.unet(_channels_last(noisy), timesteps, text, return_dict=False)[0]
        return noise


def snr_weight(alphas_cumprod: Tensor, timesteps: Tensor) -> Tensor:
    """min(SNR, gamma) / SNR: Hang et al., Efficient Diffusion Training via Min-SNR Weighting (2023)."""
    alpha = alphas_cumprod[timesteps]
    snr = alpha / (1 - alpha)
    return snr.clamp(max=GAMMA) / snr


def stratified_timesteps(batch: int, count: int, source: torch.Generator) -> Tensor:
    """One timestep from each of `batch` equal slices of 0 .. count - 1."""
    places = (torch.arange(batch) + torch.rand(batch, generator=source)) / batch
    return (places * count).long().clamp(max=count - 1)


def diffuse(latents: Tensor, noise: Tensor, alphas_cumprod: Tensor, timesteps: Tensor) -> Tensor:
    """sqrt(alpha) x + sqrt(1 - alpha) noise."""
    alpha = alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    return alpha.sqrt() * latents + (1 - alpha).sqrt() * noise


def noise_loss(module: nn.Module, examples: Examples, nothing: Tensor, alphas: Tensor, seed: int, step: int,
               batch: int) -> Tensor:  # fmt: skip
    """Weighted squared error of the predicted noise on the batch of one step; `nothing` is the empty caption."""
    source = generator(seed, step)
    chosen = batch_indices(seed, step, count=len(examples.latents), batch=batch)
    latents = examples.latents[chosen]
    ids = examples.ids[chosen, torch.randint(CAPTIONS, (batch,), generator=source)]
    dropped = torch.rand(batch, generator=source) < DROPPED_CAPTIONS
    ids = torch.where(dropped[:, None], nothing, ids)
    timesteps = stratified_timesteps(batch, len(alphas), source)
    noise = torch.randn(latents.shape, generator=source)
    noisy = diffuse(latents, noise, alphas, timesteps)
    weight = snr_weight(alphas, timesteps)
    device = next(module.parameters()).device
    predicted: Tensor = module(noisy.to(device), timesteps.to(device), ids.to(device))
    error = (predicted - noise.to(device)).square().mean((1, 2, 3))
    return (weight.to(device) * error).mean()


def _channels_last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)
