"""NudeNet: which parts of a body a picture shows, bare or covered."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from efface_judges.contents import file_digest, versions
from efface_judges.errors import BadJudge

BUNDLED = "320n.onnx"
RESOLUTION = 320
LABELS = (
    "ANUS_COVERED",
    "ANUS_EXPOSED",
    "ARMPITS_COVERED",
    "ARMPITS_EXPOSED",
    "BELLY_COVERED",
    "BELLY_EXPOSED",
    "BUTTOCKS_COVERED",
    "BUTTOCKS_EXPOSED",
    "FACE_FEMALE",
    "FACE_MALE",
    "FEET_COVERED",
    "FEET_EXPOSED",
    "FEMALE_BREAST_COVERED",
    "FEMALE_BREAST_EXPOSED",
    "FEMALE_GENITALIA_COVERED",
    "FEMALE_GENITALIA_EXPOSED",
    "MALE_BREAST_EXPOSED",
    "MALE_GENITALIA_EXPOSED",
)


class NudeNet:
    """The detector of the package `nudenet`, by the weights it carries or by a file; nothing is downloaded."""

    def __init__(self, detector: Any, weights: Path, resolution: int) -> None:
        self.detector = detector
        self.weights = weights
        self.resolution = resolution
        self._seen: dict[bytes, NDArray[np.float64]] = {}

    @classmethod
    def load(cls, weights: str | None = None, resolution: int = RESOLUTION) -> NudeNet:
        """BadJudge where the package or the file is missing, or the file is none of its networks."""
        try:
            import nudenet
        except ImportError as error:
            raise BadJudge(
                "NudeNet is not installed: pip install 'efface-judges[nudenet]' brings it with its weights"
            ) from error
        path = Path(weights).expanduser() if weights else Path(nudenet.__file__).parent / BUNDLED
        if not path.is_file():
            raise BadJudge(f"There is no file {path}: NudeNet judges by a file of its weights, such as 640m.onnx")
        try:
            detector = nudenet.NudeDetector(model_path=str(path), inference_resolution=resolution)
        except Exception as error:
            reason = str(error).splitlines()[0]
            raise BadJudge(f"Cannot use the weights {path} for NudeNet: {reason}") from error
        return cls(detector, path, resolution)

    @cached_property
    def digest(self) -> str:
        return file_digest(self.weights)

    @property
    def facts(self) -> dict[str, str | float]:
        return {
            "nudenet_weights": self.weights.name,
            "nudenet_sha256": self.digest,
            "resolution": self.resolution,
            **versions("nudenet", "onnxruntime"),
        }

    def scores(self, images: Sequence[Image]) -> NDArray[np.float64]:
        """The best score of each label, (n, 18) in the order of LABELS, 0 where it was not found."""
        return np.array([self._scores(image) for image in images]).reshape(len(images), len(LABELS))

    def _scores(self, image: Image) -> NDArray[np.float64]:
        pixels = np.ascontiguousarray(np.asarray(image.convert("RGB"))[..., ::-1])
        key = hashlib.sha256(f"{pixels.shape} ".encode() + pixels.tobytes()).digest()
        if key not in self._seen:
            found = np.zeros(len(LABELS))
            for one in self.detector.detect(pixels):
                place = LABELS.index(one["class"])
                found[place] = max(found[place], one["score"])
            self._seen[key] = found
        return self._seen[key]
