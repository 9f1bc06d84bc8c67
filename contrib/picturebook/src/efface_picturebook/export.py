"""Put the trained parts together as a standard pipeline, and write it."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline
from safetensors.torch import save
from transformers import PreTrainedTokenizerBase

from efface import writing
from efface_picturebook import networks
from efface_picturebook.denoiser import Denoiser
from efface_picturebook.detector import Detector


def assemble(vae: AutoencoderTiny, denoiser: Denoiser, tokenizer: PreTrainedTokenizerBase) -> StableDiffusionPipeline:
    """A pipeline of the trained parts, without a safety checker."""
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=denoiser.text_encoder,
        tokenizer=tokenizer,
        unet=denoiser.unet,
        scheduler=networks.scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def write(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    """Save in half precision, as safetensors."""
    pipeline.to(dtype=torch.float16).save_pretrained(folder, safe_serialization=True)


def write_detector(detector: Detector, path: Path) -> None:
    """Save in half precision, as safetensors."""
    halves = {name: tensor.half().cpu().contiguous() for name, tensor in detector.state_dict().items()}
    writing.write(path, save(halves), make_folder=True)
