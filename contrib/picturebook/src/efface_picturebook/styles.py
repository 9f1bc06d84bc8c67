"""Turn a plain picture into a sketch, a mosaic, a watercolor or a neon sign."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from PIL import Image, ImageChops, ImageFilter, ImageOps

CELL = 4  # pixels: 16 x 16 cells on a 64 x 64 picture


def plain(picture: Image.Image) -> Image.Image:
    """As drawn."""
    return picture


def sketch(picture: Image.Image) -> Image.Image:
    """Gray pencil lines where brightness changes, on paper."""
    gray = ImageOps.grayscale(picture)
    lines = ImageChops.difference(gray, gray.filter(ImageFilter.GaussianBlur(1.6)))
    return lines.point(lambda v: max(0, 250 - 4 * v)).convert("RGB")


def mosaic(picture: Image.Image) -> Image.Image:
    """Square cells of one colour with pale joints."""
    cells = picture.reduce(CELL).resize(picture.size, Image.Resampling.NEAREST)
    pixels = np.array(cells)
    pixels[::CELL] = pixels[::CELL] // 2 + 110
    pixels[:, ::CELL] = pixels[:, ::CELL] // 2 + 110
    return Image.fromarray(pixels)


def watercolor(picture: Image.Image) -> Image.Image:
    """Soft edges in washed-out colour."""
    soft = picture.filter(ImageFilter.GaussianBlur(1.4))
    return Image.blend(soft, Image.new("RGB", picture.size, (252, 248, 238)), 0.35)


def neon(picture: Image.Image) -> Image.Image:
    """Bright coloured edges that glow on black."""
    edges = ImageChops.difference(picture, picture.filter(ImageFilter.GaussianBlur(1.4)))
    glow = edges.filter(ImageFilter.GaussianBlur(1.2))
    pixels = np.asarray(edges, np.float32) * 3.4 + np.asarray(glow, np.float32) * 2.2
    return Image.fromarray(np.clip(pixels + np.array([6, 4, 22], np.float32), 0, 255).astype(np.uint8))


STYLES: Mapping[str, Callable[[Image.Image], Image.Image]] = MappingProxyType(
    {f.__name__: f for f in (plain, sketch, mosaic, watercolor, neon)}
)
