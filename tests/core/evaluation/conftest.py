"""Two suites: one that reads colours out of painted pictures, one that judges any picture by its bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

import efface

SIDE = 16
CHANNEL = {"cat": 0, "dog": 1, "bird": 2}


class Words(efface.Suite):
    """Cats (also puss; kitten and tabby are held out), dogs, birds that nobody keeps, cubism, and Tom, who is a cat."""

    name = "words"
    summary = "a few words"
    digest = "1"
    guidance = 2.0

    @property
    def example(self) -> efface.Request:
        return efface.Request((efface.Concept("cat", "dog"),))

    def accepts(self, model: efface.Model) -> bool:
        return True

    def concepts(self, kind: Any = None) -> Sequence[efface.SuiteConcept]:
        every = (
            efface.SuiteConcept("cat", synonyms=("puss",), held_out=("kitten", "tabby")),
            efface.SuiteConcept("dog"),
            efface.SuiteConcept("bird", kept=False),
            efface.SuiteConcept("cubism", kind="style"),
            efface.SuiteConcept("tom", kind="person", shows=("cat",)),
        )
        return [one for one in every if kind in (None, one.kind)]

    def templates(self, kind: Any) -> Sequence[str]:
        return {"object": ("a {}", "a red {}"), "style": ("a house in {} style",), "person": ("{}",)}[kind]

    def scenes(self, concept: str) -> Sequence[efface.Scene]:
        others = [other for other in ("dog", "bird") if other != concept]
        return [efface.Scene(f"a {concept} and a {other}", other) for other in others]

    def unrelated(self, concept: str) -> Sequence[str]:
        return [prompt for prompt in ("a dog house", "a tree", "a car") if concept not in prompt]


class Colours(Words):
    """Finds a concept where its colour is, and nothing else."""

    def found(self, images: Sequence[Image.Image], concept: str) -> Any:
        return self._where(images, concept).mean((1, 2)) * 8

    def region(self, images: Sequence[Image.Image], concept: str) -> Any:
        return self._where(images, concept)

    def features(self, images: Sequence[Image.Image]) -> Any:
        return np.stack([np.asarray(image).reshape(-1) / 128 - 1 for image in images])

    def _where(self, images: Sequence[Image.Image], concept: str) -> Any:
        pixels = np.stack([np.asarray(image) for image in images])
        return pixels[..., CHANNEL[concept]] == 255 if concept in CHANNEL else pixels.min(-1) == 99


class Bytes(Words):
    """Has an opinion that any other byte would change."""

    def found(self, images: Sequence[Image.Image], concept: str) -> Any:
        digests = [hashlib.sha256(image.tobytes() + concept.encode()).digest() for image in images]
        return np.array([digest[0] / 255 for digest in digests])

    def region(self, images: Sequence[Image.Image], concept: str) -> Any:
        return np.stack([np.arange(image.width * image.height).reshape(image.size[::-1]) == 0 for image in images])

    def features(self, images: Sequence[Image.Image]) -> Any:
        return np.stack([np.asarray(image).reshape(-1)[:20] / 128 - 1 for image in images])


def paint(*shown: str, gray: int = 40) -> Image.Image:
    """A gray picture with a square of 8 x 8 pixels in a corner of its own for each thing it shows."""
    pixels = np.full((SIDE, SIDE, 3), gray, dtype=np.uint8)
    for thing in shown:
        row, column = {"cat": (0, 0), "dog": (0, 8), "bird": (8, 0)}[thing]
        pixels[row : row + 8, column : column + 8, CHANNEL[thing]] = 255
    return Image.fromarray(pixels)


@pytest.fixture
def colours() -> Colours:
    return Colours()


@pytest.fixture
def suite() -> Bytes:
    return Bytes()


@pytest.fixture
def painted() -> Callable[..., Image.Image]:
    return paint
