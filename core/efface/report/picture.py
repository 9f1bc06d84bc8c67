"""Pictures inside a page."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

LARGEST = 256


def data_uri(image: Image) -> str:
    """The picture as a data URI: as it is up to 256 pixels, larger ones reduced to that."""
    return _uri(image, "PNG") if not is_reduced(image) else _uri(_reduced(image), "JPEG", quality=92)


def whole(image: Image) -> str:
    """The picture as a data URI, at its own size."""
    return _uri(image, "PNG")


def is_reduced(image: Image) -> bool:
    """Whether a page shows fewer pixels than the picture has."""
    return max(image.size) > LARGEST


def _reduced(image: Image) -> Image:
    small = image.convert("RGB")
    small.thumbnail((LARGEST, LARGEST))
    return small


def _uri(image: Image, form: str, **options: int) -> str:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return f"data:image/{form.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
