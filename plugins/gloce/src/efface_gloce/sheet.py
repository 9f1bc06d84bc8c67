"""Gate maps as one picture: each generated picture before and after, and where every block of the U-Net acted on it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from efface.report.drawing import EDGE, FRAME, GAP, INK, LINE, PAPER, QUIET, SMALL, cell, framed, letters, wrapped
from efface_gloce.maps import GateMap

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from torch import Tensor

LABEL, HEAD, CAPTION = 130, 88, 64
HEAT = (255, 70, 0)
PALE, STRONGEST = 0.55, 0.8
BAR = (120, 12)
NAMED, LEAST = 3, 0.001
LEGEND = "how far gates were open, 0 to 100 %, as the mean over layers and steps; one opens where p - c is above 0"


@dataclass(frozen=True)
class Row:
    """One prompt with one seed: the picture before, the one after, and the maps on the latter."""

    prompt: str
    seed: int
    base: Image
    edited: Image
    maps: tuple[GateMap, ...]

    @property
    def is_untouched(self) -> bool:
        """Whether no gate opened, with the prompt or without: then the picture is the same to the last bit."""
        return all(one.share == one.unprompted == 0 for one in self.maps)


@dataclass(frozen=True)
class Sheet:
    """All rows under a title."""

    title: str
    rows: tuple[Row, ...]

    def png(self) -> bytes:
        """The sheet as a PNG file."""
        buffer = io.BytesIO()
        self.drawn().save(buffer, "PNG")
        return buffer.getvalue()

    def drawn(self) -> Image:
        from PIL import Image, ImageDraw

        wide, high = cell(self.rows[0].edited)
        columns = 2 + max(len(row.maps) for row in self.rows)
        width = 2 * EDGE + LABEL + columns * (wide + GAP) - GAP
        sheet = Image.new("RGB", (width, EDGE + HEAD + len(self.rows) * (high + CAPTION)), PAPER)
        pen = ImageDraw.Draw(sheet)
        letters(pen, (EDGE, EDGE), self.title)
        sheet.paste(_bar(), (EDGE, EDGE + LINE + 8))
        letters(pen, (EDGE + BAR[0] + 8, EDGE + LINE + 6), LEGEND, QUIET, SMALL)
        for column, head in enumerate(["before", "after", *(one.block for one in self.rows[0].maps)]):
            letters(pen, (EDGE + LABEL + column * (wide + GAP), EDGE + HEAD - LINE - 4), head)
        for number, row in enumerate(self.rows):
            _draw(sheet, pen, row, EDGE + HEAD + number * (high + CAPTION))
        return sheet


def heated(picture: Image, gates: GateMap) -> Image:
    """The picture in pale grey, coloured as far as gates were open there."""
    from PIL import Image

    pale = Image.blend(picture.convert("L").convert("RGB"), Image.new("RGB", picture.size, PAPER), PALE)
    high, wide = gates.open.shape
    values = _bytes(gates.open.clamp(0, 1))
    mask = Image.frombytes("L", (wide, high), values).resize(picture.size, Image.Resampling.NEAREST)
    return Image.composite(Image.new("RGB", picture.size, HEAT), pale, mask)


def _bytes(open_: Tensor) -> bytes:
    """How strong the colour is, 0 to 255; at its strongest the picture still shows through."""
    return bytes((open_ * 255 * STRONGEST).round().to(torch.uint8).flatten().tolist())


def _bar() -> Image:
    """The colours from gates that are closed to gates that are open."""
    from PIL import Image

    mask = Image.frombytes("L", (BAR[0], 1), _bytes(torch.linspace(0, 1, BAR[0]))).resize(BAR)
    return Image.composite(Image.new("RGB", BAR, HEAT), Image.new("RGB", BAR, FRAME), mask)


def _draw(sheet: Image, pen: ImageDraw, row: Row, top: int) -> None:
    for number, line in enumerate([*wrapped(row.prompt, LABEL - GAP), f"seed {row.seed}"]):
        letters(pen, (EDGE, top + number * LINE), line)
    said = "no gate opened: the same picture" if row.is_untouched else ""
    pictures = [("", row.base), (said, row.edited), *((caption(one), heated(row.edited, one)) for one in row.maps)]
    wide, high = cell(row.edited)
    for column, (below, picture) in enumerate(pictures):
        left = EDGE + LABEL + column * (wide + GAP)
        framed(sheet, pen, picture, (left, top))
        lines = [line for part in below.splitlines() for line in wrapped(part, wide, SMALL)]
        for number, line in enumerate(lines):
            letters(pen, (left, top + high + 4 + number * (SMALL + 3)), line, QUIET if number else INK, SMALL)


def caption(gates: GateMap) -> str:
    """How far open, or why not; with several concepts which ones acted."""
    if gates.lowest_threshold >= 1:
        return f"cannot open\nthreshold {gates.lowest_threshold:.2f}"
    lines = [_extent(gates.share), f"p - c up to {gates.highest:+.3f}"]
    if gates.unprompted > 0:
        lines.append(f"without prompt: {_extent(gates.unprompted)}")
    if len(gates.concepts) > 1:
        lines.append(", ".join(f"{concept} {share:.0%}" for concept, share in list(gates.winners.items())[:NAMED]))
    return "\n".join(lines)


def _extent(share: float) -> str:
    if share == 0:
        return "closed"
    return f"open {share:.1%}" if share >= LEAST else f"open < {LEAST:.1%}"
