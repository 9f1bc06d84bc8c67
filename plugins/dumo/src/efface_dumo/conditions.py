"""What the U-Net is conditioned on: rows of text, and what SDXL adds to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

import efface


@dataclass(frozen=True)
class Conditions:
    """Prompts as rows: `text` (n, T, D) and `pooled` (n, P), which is None but for SDXL; `factor` pixels per latent."""

    text: Tensor
    pooled: Tensor | None
    factor: int

    def __len__(self) -> int:
        return len(self.text)

    def __getitem__(self, rows: Tensor) -> Conditions:
        return replace(self, text=self.text[rows], pooled=None if self.pooled is None else self.pooled[rows])

    def added(self, latents: Tensor) -> dict[str, Any] | None:
        """SDXL's further conditions for a picture that is not cropped or scaled."""
        if self.pooled is None:
            return None
        high, wide = (size * self.factor for size in latents.shape[-2:])
        sizes = torch.tensor([high, wide, 0, 0, high, wide], dtype=latents.dtype, device=latents.device)
        return {"text_embeds": self.pooled, "time_ids": sizes.expand(len(latents), -1)}


def rows_of(*parts: Conditions) -> Conditions:
    """All rows of several conditions."""
    pooled = [part.pooled for part in parts if part.pooled is not None]
    return replace(
        parts[0], text=torch.cat([part.text for part in parts]), pooled=torch.cat(pooled) if pooled else None
    )


@dataclass(frozen=True)
class Prompts:
    """The prompts of one concept's training.

    `erased` are its phrases in every template and `anchors`, row by row, what they become. `kept` are the prompts
    whose prediction stays: the unconditional one first, then the request's and the anchors.
    """

    erased: Conditions
    anchors: Conditions
    kept: Conditions

    @property
    def unconditional(self) -> Conditions:
        return self.kept[torch.zeros(1, dtype=torch.long)]


def prompts_of(model: efface.Model, request: efface.Request, concept: efface.Concept, dtype: torch.dtype) -> Prompts:
    """Every prompt of one concept's training, encoded once."""
    anchor = concept.anchor or ""
    erased = model.encode_phrases(concept.phrases, request.templates)
    anchors = model.encode_phrases([anchor] * len(concept.phrases), request.templates)
    texts = dict.fromkeys([*request.keep, *anchors.prompts])
    empty = _conditions(model, _unconditional(model), dtype)
    return Prompts(
        erased=_conditions(model, erased, dtype),
        anchors=_conditions(model, anchors, dtype),
        kept=rows_of(empty, _conditions(model, model.encode(list(texts)), dtype)),
    )


def _conditions(model: efface.Model, encoded: efface.Encoded, dtype: torch.dtype) -> Conditions:
    pooled = None if encoded.pooled is None else encoded.pooled.to(model.device, dtype)
    return Conditions(encoded.hidden.to(model.device, dtype), pooled, int(model.pipe.vae_scale_factor))


def _unconditional(model: efface.Model) -> efface.Encoded:
    """What pipelines put in the place of an empty negative prompt: zeros with some (SDXL's)."""
    empty = model.encode([""])
    if empty.pooled is None or not model.pipe.config.get("force_zeros_for_empty_prompt"):
        return empty
    return replace(empty, hidden=torch.zeros_like(empty.hidden), pooled=torch.zeros_like(empty.pooled))


def names_of(model: efface.Model, phrases: Sequence[str]) -> tuple[Tensor, list[list[int]]]:
    """The phrases alone, as the gate compares prompts with them: embeddings (n, T, D) and token ids."""
    encoded = model.encode(phrases)
    return encoded.hidden.float().cpu(), encoded.ids.tolist()
