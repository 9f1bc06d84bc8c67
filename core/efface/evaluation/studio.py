"""The place where the pictures of an evaluation are made, or found again."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from efface.errors import EffaceError
from efface.evaluation.draws import Draw
from efface.evaluation.gallery import Gallery
from efface.evaluation.stages import Stage
from efface.generating import generate

if TYPE_CHECKING:
    from PIL.Image import Image

LIBRARIES = ("torch", "diffusers", "transformers")


@dataclass(frozen=True)
class Studio:
    """A pipeline with its sampler and a gallery; `subject` is the digest of the pipeline."""

    pipe: Any
    gallery: Gallery
    subject: str
    steps: int
    guidance: float

    def missing(self, stage: Stage, draws: Sequence[Draw]) -> list[Draw]:
        """Those that are not in the gallery."""
        return [draw for draw in draws if not self.gallery.has(self._facts(stage, draw))]

    def made(self, draw: Draw) -> list[Image]:
        """One batch, made on the pipeline as it is now."""
        return generate(
            self.pipe,
            [draw.prompt],
            draw.seeds,
            steps=self.steps,
            guidance=self.guidance,
            batch_size=len(draw.seeds),
        )

    def keep(self, stage: Stage, draw: Draw, images: Sequence[Image]) -> None:
        """Put a batch into the gallery."""
        self.gallery.keep(self._facts(stage, draw), images)

    def pictures(self, stage: Stage, draws: Sequence[Draw]) -> list[Image]:
        """Pictures that were drawn."""
        return [image for draw in draws for image in self.gallery.pictures(self._facts(stage, draw), _gone)]

    def _facts(self, stage: Stage, draw: Draw) -> dict[str, Any]:
        return {
            "subject": self.subject,
            "steps": self.steps,
            "guidance": self.guidance,
            "stage": list(stage.identity),
            "prompt": draw.prompt,
            "seeds": list(draw.seeds),
        }


def subject_of(pipe: Any, weights: str) -> str:
    """A digest of what all pictures of a pipeline depend on: `weights` is its weights' digest, and besides these its
    class, the configs of its parts, its words, the kind of device and the libraries."""
    about = {
        "pipeline": type(pipe).__name__,
        "weights": weights,
        "configs": {name: _config(part) for name, part in _parts(pipe) if hasattr(part, "config")},
        "words": {name: _words(part) for name, part in _parts(pipe) if hasattr(part, "get_vocab")},
        "device": pipe._execution_device.type,
        "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()


def _parts(pipe: Any) -> Iterator[tuple[str, Any]]:
    return ((name, part) for name, part in sorted(pipe.components.items()) if part is not None)


def _config(part: Any) -> dict[str, Any]:
    """Class and config, without the private entries: they say where it was loaded from."""
    config = part.config if isinstance(part.config, dict) else part.config.to_dict()
    public = {name: value for name, value in config.items() if not name.startswith("_")}
    return {"class": type(part).__name__, **public}


def _words(tokenizer: Any) -> dict[str, Any]:
    return {"vocabulary": tokenizer.get_vocab(), "length": tokenizer.model_max_length}


def _gone() -> NoReturn:
    raise EffaceError("A file of the gallery vanished or was damaged while it was in use; start again")
