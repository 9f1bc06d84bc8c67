"""The suite that measures erasures on picturebook: its words, and a detector that judges its pictures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import efface
from efface.concept import Kind
from efface.errors import BadConcept, unknown
from efface_picturebook import concepts
from efface_picturebook.scene import SIZE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    from efface_picturebook.judge import Judge

PACKAGE = Path(__file__).parent
DETECTOR = PACKAGE / "detector.safetensors"
VOCABULARY = PACKAGE / "weights" / "tokenizer" / "tokenizer.json"


class PicturebookSuite(efface.Suite):
    """Twelve objects, four styles and two characters, told by a small network; `detector` is its file."""

    name = "picturebook"
    summary = "12 objects, 4 styles, 2 characters in 64 x 64 pictures, judged by a detector"
    guidance = 4.0

    def __init__(self, detector: Path = DETECTOR) -> None:
        self.detector = detector

    @property
    def example(self) -> efface.Request:
        return concepts.example()

    @property
    def stack(self) -> Sequence[efface.Concept]:
        return concepts.STACK

    @property
    def digest(self) -> str:  # type: ignore[override]
        """SHA-256 of the detector's file; "missing" without one, which using it then reports."""
        return hashlib.sha256(self.detector.read_bytes()).hexdigest() if self.detector.is_file() else "missing"

    def accepts(self, model: efface.Model) -> bool:
        """Whether the model has picturebook's words and picture size: itself, or a copy with an edit fused in."""
        return _size(model.pipe) == SIZE and _vocabulary(model.pipe) == _own_vocabulary()

    def concepts(self, kind: Kind | None = None) -> Sequence[efface.SuiteConcept]:
        return tuple(one for one in concepts.concepts() if kind in (None, one.kind))

    def templates(self, kind: Kind) -> Sequence[str]:
        return concepts.TEMPLATES[kind]

    def scenes(self, concept: str) -> Sequence[efface.Scene]:
        return concepts.scenes(self._known(concept).text)

    def unrelated(self, concept: str) -> Sequence[str]:
        return concepts.unrelated(self._known(concept).text)

    def found(self, images: Sequence[Image], concept: str) -> NDArray[np.floating[Any]]:
        """Objects and characters: the detector's presence. Styles: their share among all styles and plain."""
        asked = self._known(concept)
        verdicts = self.judge.verdicts(images)
        return verdicts.style(concept) if asked.kind == "style" else verdicts.presence(concept)

    def region(self, images: Sequence[Image], concept: str) -> NDArray[np.bool_] | None:
        """The pixels of an object, or of the object that a character is; None for a style, which is everywhere."""
        asked = self._known(concept)
        if asked.kind == "style":
            return None
        return self.judge.verdicts(images).region(asked.shows[0] if asked.shows else concept)

    def features(self, images: Sequence[Image]) -> NDArray[np.floating[Any]]:
        return self.judge.verdicts(images).features

    @cached_property
    def judge(self) -> Judge:
        """The detector, loaded when it is first asked."""
        from efface_picturebook.judge import Judge

        return Judge.load(self.detector)

    def _known(self, concept: str) -> efface.SuiteConcept:
        known = {one.text: one for one in concepts.concepts()}
        if concept not in known:
            raise BadConcept(unknown("concept", concept, known, have="picturebook has"))
        return known[concept]


def _size(pipe: Any) -> int | None:
    """Side of the pipeline's pictures in pixels; None where it does not say."""
    latent = getattr(getattr(getattr(pipe, "unet", None), "config", None), "sample_size", None)
    factor = getattr(pipe, "vae_scale_factor", None)
    return latent * factor if isinstance(latent, int) and isinstance(factor, int) else None


def _vocabulary(pipe: Any) -> dict[str, int] | None:
    tokenizer = getattr(pipe, "tokenizer", None)
    return None if tokenizer is None else dict(tokenizer.get_vocab())


def _own_vocabulary() -> dict[str, int]:
    vocabulary: dict[str, int] = json.loads(VOCABULARY.read_text())["model"]["vocab"]
    return vocabulary
