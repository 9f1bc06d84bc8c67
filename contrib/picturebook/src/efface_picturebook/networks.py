"""The parts of the pipeline, with Stable Diffusion 1.x's block structure at small width."""

from __future__ import annotations

import torch
from diffusers import AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerBase

from efface_picturebook.scene import SIZE

WIDTH = 128
LATENT_CHANNELS = 4
LATENT_SIZE = SIZE // 4


def seeded(seed: int) -> None:
    """Make the construction of the next network reproducible."""
    torch.manual_seed(seed)


def autoencoder(scaling_factor: float = 1.0) -> AutoencoderTiny:
    """0.65 M parameters, no normalisation and no attention; latents are a quarter of the picture's size."""
    return AutoencoderTiny(
        encoder_block_out_channels=(48, 48, 48),
        decoder_block_out_channels=(48, 48, 48),
        num_encoder_blocks=(1, 1, 2),
        num_decoder_blocks=(2, 2, 1),
        latent_channels=LATENT_CHANNELS,
        scaling_factor=scaling_factor,
    )


def unet() -> UNet2DConditionModel:
    """8.8 M parameters, 12 skip connections, 16 cross-attention layers."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(32, 64, 128, 128),
        layers_per_block=2,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=8,
    )


def text_encoder(tokenizer: PreTrainedTokenizerBase) -> CLIPTextModel:
    """CLIP's text transformer with three layers, sized for the picturebook's vocabulary."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            projection_dim=WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=tokenizer.model_max_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def scheduler() -> DDIMScheduler:
    """Stable Diffusion 1.x's noise schedule, sampled by DDIM."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="epsilon",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
