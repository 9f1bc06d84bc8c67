"""Sizes, colours and letters of the pictures that are made of pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

SMALLEST, LARGEST = 128, 256
EDGE, GAP, SEAM = 24, 16, 6
LINE, SIZE, SMALL = 18, 14, 12
PAPER, INK, QUIET, FRAME = "#ffffff", "#22211e", "#6d6a63", "#dedbd3"


def cell(image: Image) -> tuple[int, int]:
    """Width and height to show pictures at: below 128 pixels enlarged by a whole factor, above 256 reduced."""
    longest = max(image.size)
    if longest < SMALLEST:
        factor = -(-SMALLEST // longest)
        return image.width * factor, image.height * factor
    shrink = min(1.0, LARGEST / longest)
    return round(image.width * shrink), round(image.height * shrink)


def framed(sheet: Image, pen: ImageDraw, image: Image, place: tuple[int, int]) -> None:
    """Put a picture on the sheet at its size there, with a thin frame."""
    from PIL.Image import Resampling

    wide, high = cell(image)
    sampling = Resampling.NEAREST if wide > image.width else Resampling.LANCZOS
    left, top = place
    sheet.paste(image.convert("RGB").resize((wide, high), sampling), place)
    pen.rectangle((left - 1, top - 1, left + wide, top + high), outline=FRAME)


def letters(pen: ImageDraw, place: tuple[int, int], text: str, colour: str = INK, size: int = SIZE) -> None:
    from PIL import ImageFont

    pen.text(place, text, fill=colour, font=ImageFont.load_default(size))


def length(text: str, size: int = SIZE) -> int:
    """Width of a line in pixels."""
    from PIL import ImageFont

    return round(ImageFont.load_default(size).getlength(text))


def wrapped(text: str, width: int, size: int = SIZE) -> list[str]:
    """Lines of whole words that fit a width, in pixels; a word that is longer has a line of its own."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and length(longer, size) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
