"""A comparison as one picture: a row per prompt, a column per seed, each picture above what became of it."""

from __future__ import annotations

import io
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

from efface.editor import Entry
from efface.report import drawing
from efface.report.comparison import Comparison
from efface.report.drawing import EDGE, GAP, LINE, QUIET, SEAM, SMALL

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

LABEL, WRAP = 176, 22
HEAD, CAPTION = 76, 22


def png(comparison: Comparison) -> bytes:
    """The grid as a PNG file; pictures below 128 pixels are enlarged by a whole factor, above 256 reduced."""
    buffer = io.BytesIO()
    _Grid(comparison).drawn().save(buffer, "PNG")
    return buffer.getvalue()


@dataclass(frozen=True)
class _Grid:
    comparison: Comparison

    @property
    def cell(self) -> tuple[int, int]:
        """Width and height of a picture in the grid."""
        return drawing.cell(self.comparison.base[0])

    @property
    def row(self) -> int:
        return 2 * self.cell[1] + SEAM + CAPTION + GAP

    @property
    def size(self) -> tuple[int, int]:
        sampling = self.comparison.sampling
        columns, rows = len(sampling.seeds), len(sampling.prompts)
        wide = LABEL + columns * (self.cell[0] + GAP) - GAP
        return 2 * EDGE + max(wide, *map(drawing.length, self.heads)), 2 * EDGE + HEAD + rows * self.row - GAP

    @property
    def heads(self) -> list[str]:
        changes = [_change(entry) for entry in self.comparison.entries]
        return [f"above: {self.comparison.model}", f"below: with {' and '.join(changes) or 'nothing attached'}"]

    def drawn(self) -> Image:
        from PIL import Image, ImageDraw

        sheet = Image.new("RGB", self.size, drawing.PAPER)
        pen = ImageDraw.Draw(sheet)
        self._draw_head(pen)
        for row in range(len(self.comparison.sampling.prompts)):
            self._draw_prompt(pen, row)
            for column in range(len(self.comparison.sampling.seeds)):
                self._draw_pair(sheet, pen, row, column)
        return sheet

    def _draw_head(self, pen: ImageDraw) -> None:
        for number, line in enumerate(self.heads):
            drawing.letters(pen, (EDGE, EDGE + number * LINE), line)
        for column, seed in enumerate(self.comparison.sampling.seeds):
            drawing.letters(pen, (self._left(column), EDGE + HEAD - LINE - 4), f"seed {seed}", QUIET, SMALL)

    def _draw_prompt(self, pen: ImageDraw, row: int) -> None:
        lines = textwrap.wrap(self.comparison.sampling.prompts[row].text, WRAP)
        most = max(1, self.row // LINE - 1)
        for number, line in enumerate(lines[:most]):
            drawing.letters(pen, (EDGE, self._top(row) + number * LINE), line)

    def _draw_pair(self, sheet: Image, pen: ImageDraw, row: int, column: int) -> None:
        position = row * len(self.comparison.sampling.seeds) + column
        left, top = self._left(column), self._top(row)
        pair = (self.comparison.base[position], self.comparison.edited[position])
        for image, upper in zip(pair, (top, top + self.cell[1] + SEAM), strict=True):
            drawing.framed(sheet, pen, image, (left, upper))
        below = (left, top + 2 * self.cell[1] + SEAM + 3)
        drawing.letters(pen, below, f"change {self.comparison.changes[position]:.3f}", QUIET, SMALL)

    def _left(self, column: int) -> int:
        return EDGE + LABEL + column * (self.cell[0] + GAP)

    def _top(self, row: int) -> int:
        return EDGE + HEAD + row * self.row


def _change(entry: Entry) -> str:
    """`cat becoming dog (uce)`, with the scale where it is not 1."""
    concepts = entry.erasure.concepts
    became = ", ".join(f"{concept.text} becoming {concept.anchor or 'nothing'}" for concept in concepts)
    return f"{became} ({entry.erasure.method}{'' if entry.scale == 1 else f' at {entry.scale:g}'})"
