"""The detector at work on pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from safetensors.torch import load
from torch import Tensor
from torch.nn.functional import interpolate

from efface.errors import EffaceError
from efface_picturebook.detector import SEEN, STYLES, THINGS, WIDE, Detector
from efface_picturebook.scene import SIZE

BATCH = 50


class BadDetector(EffaceError):
    """A detector's file that cannot be used."""


@dataclass(frozen=True)
class Verdicts:
    """What n pictures show: scores (n, 14) and (n, 5) from 0 to 1, regions (n, 12, 64, 64), features (n, 96)."""

    presences: NDArray[np.float32]
    styles: NDArray[np.float32]
    regions: NDArray[np.bool_]
    features: NDArray[np.float32]

    def presence(self, name: str) -> NDArray[np.float32]:
        """How surely each picture shows an object or character."""
        return self.presences[:, SEEN.index(name)]

    def style(self, name: str) -> NDArray[np.float32]:
        """The share of one style among all and plain."""
        return self.styles[:, STYLES.index(name)]

    def region(self, name: str) -> NDArray[np.bool_]:
        """Where each picture shows an object."""
        return self.regions[:, THINGS.index(name)]


class Judge:
    """A detector on the CPU in single precision; the same pictures get the same verdicts."""

    def __init__(self, detector: Detector) -> None:
        self.detector = detector.float().eval()

    @classmethod
    def load(cls, path: Path) -> Judge:
        """The judge of a detector's file; BadDetector where it is missing, damaged or of another network."""
        detector = Detector()
        try:
            tensors = load(path.read_bytes())
            detector.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
        except Exception as error:
            reason = str(error).splitlines()[0]
            raise BadDetector(f"Cannot use the detector {path}: {reason}") from error
        return cls(detector)

    def verdicts(self, images: Sequence[Image]) -> Verdicts:
        """Judge pictures of 64 x 64 pixels."""
        return self.judged(_tensor(images))

    @torch.no_grad()
    def judged(self, pictures: Tensor) -> Verdicts:
        """Judge floats from -1 to 1, (n, 3, 64, 64), in batches."""
        sights = [self.detector(pictures[i : i + BATCH]) for i in range(0, len(pictures), BATCH)]
        regions = [_upsampled(sight.region) for sight in sights]
        return Verdicts(
            presences=_joined([sight.presence.sigmoid() for sight in sights], len(SEEN)),
            styles=_joined([sight.style.softmax(1) for sight in sights], len(STYLES)),
            regions=_joined(regions, len(THINGS), SIZE, SIZE).astype(np.bool_),
            features=_joined([sight.features for sight in sights], WIDE),
        )


def _tensor(images: Sequence[Image]) -> Tensor:
    """Pictures as floats from -1 to 1, (n, 3, 64, 64)."""
    for image in images:
        if image.size != (SIZE, SIZE):
            raise ValueError(
                f"The detector judges pictures of {SIZE} x {SIZE} pixels, not of {image.width} x {image.height}"
            )
    pixels = np.array([np.asarray(image.convert("RGB")) for image in images], np.uint8).reshape(-1, SIZE, SIZE, 3)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def _upsampled(region: Tensor) -> Tensor:
    """Region logits at the size of the pictures, as booleans."""
    return interpolate(region, size=(SIZE, SIZE), mode="bilinear") > 0


def _joined(parts: list[Tensor], *shape: int) -> NDArray[Any]:
    return torch.cat(parts).numpy() if parts else np.zeros((0, *shape), np.float32)
