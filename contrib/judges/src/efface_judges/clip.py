"""CLIP (Radford et al., ICML 2021) from a local folder: pictures and texts in one space."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor
from torch.nn.functional import normalize

from efface_judges.contents import folder_digest, versions
from efface_judges.errors import BadJudge

BATCH = 32
READ = ("*.json", "*.txt", "*.safetensors")
OLDER = (*READ[:2], "*.bin")


class Clip:
    """A CLIP model with what prepares its texts and pictures; it looks at each of them once, however often it is asked.

    Pictures are prepared on the CPU by PIL, so that other installed libraries do not change a figure.
    """

    def __init__(self, folder: Path, model: Any, tokenizer: Any, processor: Any) -> None:
        self.folder = folder
        self.model = model
        self.tokenizer = tokenizer
        self.processor = processor
        self._read: dict[str, Tensor] = {}
        self._seen: dict[bytes, Tensor] = {}

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu") -> Clip:
        """The model of a folder as `save_pretrained` or a download leaves it; BadJudge for any other."""
        from transformers import AutoImageProcessor, CLIPModel, CLIPTokenizer

        path = Path(folder).expanduser()
        _check(path)
        try:
            model, loading = CLIPModel.from_pretrained(path, local_files_only=True, output_loading_info=True)
            tokenizer = CLIPTokenizer.from_pretrained(path, local_files_only=True)
            processor = AutoImageProcessor.from_pretrained(path, local_files_only=True, backend="pil")
        except Exception as error:
            reason = str(error).splitlines()[0]
            raise BadJudge(f"Cannot use the CLIP model {path}: {reason}") from error
        if loading["missing_keys"]:
            missing = sorted(loading["missing_keys"])[0]
            raise BadJudge(f"Cannot use the CLIP model {path}: {missing} is not in its weights")
        try:
            return cls(path, model.float().eval().to(device), tokenizer, processor)
        except (RuntimeError, AssertionError) as error:
            raise BadJudge(f"CLIP cannot compute on {device!r}: {str(error).splitlines()[0]}") from error

    @cached_property
    def digest(self) -> str:
        """SHA-256 of weights, configs and words; pickled weights count where there are no others."""
        return folder_digest(self.folder, READ if any(self.folder.glob("*.safetensors")) else OLDER)

    @property
    def facts(self) -> dict[str, str | float]:
        return {"clip": self.folder.resolve().name, "clip_sha256": self.digest, **versions("transformers", "torch")}

    @property
    def scale(self) -> float:
        """What cosines are multiplied by to become logits."""
        return float(self.model.logit_scale.detach().exp())

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Directions of texts, (n, D), of length 1; a long text is cut at what the model can read."""
        for batch in _batches([text for text in dict.fromkeys(texts) if text not in self._read]):
            self._read.update(zip(batch, self._text_batch(batch), strict=True))
        return _rows([self._read[text] for text in texts], self.width)

    @torch.no_grad()
    def pictures(self, images: Sequence[Image]) -> NDArray[np.float64]:
        """Directions of pictures, (n, D), of length 1."""
        keys = [_key(image) for image in images]
        new = {key: image for key, image in zip(keys, images, strict=True) if key not in self._seen}
        for batch in _batches(list(new)):
            self._seen.update(zip(batch, self._picture_batch([new[key] for key in batch]), strict=True))
        return _rows([self._seen[key] for key in keys], self.width)

    @property
    def width(self) -> int:
        return int(self.model.config.projection_dim)

    def _text_batch(self, texts: Sequence[str]) -> Tensor:
        longest = self.model.config.text_config.max_position_embeddings
        tokens = self.tokenizer(list(texts), padding=True, truncation=True, max_length=longest, return_tensors="pt")
        given = {name: tokens[name].to(self.model.device) for name in ("input_ids", "attention_mask")}
        return normalize(self.model.get_text_features(**given).pooler_output, dim=-1).cpu()

    def _picture_batch(self, images: Sequence[Image]) -> Tensor:
        pixels = self.processor(images=[image.convert("RGB") for image in images], return_tensors="pt")["pixel_values"]
        found = self.model.get_image_features(pixel_values=pixels.to(self.model.device))
        return normalize(found.pooler_output, dim=-1).cpu()


def _check(folder: Path) -> None:
    """BadJudge for a folder that is not there or whose config is none of a CLIP model."""
    hint = "name a local folder with the files of a CLIP model, such as a copy of openai/clip-vit-base-patch32"
    if not folder.is_dir():
        raise BadJudge(f"There is no folder {folder}: {hint}")
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise BadJudge(f"{folder} has no config.json that can be read: {hint}") from error
    if kind != "clip":
        raise BadJudge(f"{folder} is a model of type {kind!r}, not 'clip': {hint}")


def _key(image: Image) -> bytes:
    return hashlib.sha256(f"{image.mode} {image.size} ".encode() + image.tobytes()).digest()


def _batches(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (items[first : first + BATCH] for first in range(0, len(items), BATCH))


def _rows(rows: Sequence[Tensor], width: int) -> NDArray[np.float64]:
    found: NDArray[np.float64] = (torch.stack(list(rows)) if rows else torch.zeros(0, width)).double().numpy()
    return found
