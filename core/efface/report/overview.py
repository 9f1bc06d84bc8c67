"""A demonstration as one picture: a row for the base and for each method, a column per prompt."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from efface.report import drawing
from efface.report.demonstration import Demonstration, Outcome
from efface.report.drawing import EDGE, GAP, LINE, QUIET, SEAM, SMALL
from efface.report.figure import TABLE

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

SEEDS = 2
LABEL, HEAD = 156, 84
SAID = ("efficacy", "anchor", "specificity_drop")


def png(demonstration: Demonstration) -> bytes:
    """The overview as a PNG file, with the pictures of the first two seeds; methods that were not run are left out."""
    buffer = io.BytesIO()
    _Overview(demonstration).drawn().save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


@dataclass(frozen=True)
class _Overview:
    found: Demonstration

    @property
    def seeds(self) -> int:
        return min(SEEDS, len(self.found.sampling.seeds))

    @property
    def column(self) -> int:
        """Width of a prompt's pictures."""
        return self.seeds * (self._cell[0] + SEAM) - SEAM

    @property
    def size(self) -> tuple[int, int]:
        columns, rows = len(self.found.sampling.prompts), 1 + len(self.found.outcomes)
        wide = LABEL + columns * (self.column + GAP) - GAP
        high = HEAD + rows * (self._cell[1] + SEAM) - SEAM
        return 2 * EDGE + max(wide, drawing.length(self.title)), 2 * EDGE + high

    @property
    def title(self) -> str:
        concept, seeds = self.found.concept, self.found.sampling.seeds[: self.seeds]
        numbers = f"seed{'s' if self.seeds > 1 else ''} {' and '.join(map(str, seeds))}"
        return f"{self.found.subject.name}: {concept.text} becomes {concept.anchor or 'nothing'} ({numbers})"

    def drawn(self) -> Image:
        from PIL import Image, ImageDraw

        sheet = Image.new("RGB", self.size, drawing.PAPER)
        pen = ImageDraw.Draw(sheet)
        self._draw_head(pen)
        self._draw_row(sheet, pen, 0, ["before"], self.found.base)
        for row, outcome in enumerate(self.found.outcomes, 1):
            self._draw_row(sheet, pen, row, [outcome.method, *self._said(outcome)], outcome.images)
        return sheet

    def _draw_head(self, pen: ImageDraw) -> None:
        drawing.letters(pen, (EDGE, EDGE), self.title)
        for column, prompt in enumerate(self.found.sampling.prompts):
            lines = drawing.wrapped(prompt.text, self.column)[:2]
            top = EDGE + HEAD - 8 - LINE * len(lines)
            drawing.letters(pen, (self._left(column), top - LINE), prompt.label, QUIET, SMALL)
            for number, line in enumerate(lines):
                drawing.letters(pen, (self._left(column), top + number * LINE), line)

    def _draw_row(self, sheet: Image, pen: ImageDraw, row: int, label: Sequence[str], images: Sequence[Image]) -> None:
        top = EDGE + HEAD + row * (self._cell[1] + SEAM)
        for number, line in enumerate(label):
            colour, size = (QUIET, SMALL) if number else (drawing.INK, drawing.SIZE)
            drawing.letters(pen, (EDGE, top + number * LINE), line, colour, size)
        for column, of_prompt in enumerate(self.found.sampling.by_prompt(images)):
            for number, image in enumerate(of_prompt[: self.seeds]):
                drawing.framed(sheet, pen, image, (self._left(column) + number * (self._cell[0] + SEAM), top))

    def _said(self, outcome: Outcome) -> Iterator[str]:
        """The first figures, in words."""
        scores = self.found.scores(outcome)
        for figure in (figure for figure in TABLE if scores and figure.name in SAID):
            value = figure.after(scores) if scores else None
            if value is not None:
                line = f"{figure.title(self.found.concept)}: {figure.value(value)}"
                yield from drawing.wrapped(line, LABEL - GAP, SMALL)

    @property
    def _cell(self) -> tuple[int, int]:
        return drawing.cell(self.found.base[0])

    def _left(self, column: int) -> int:
        return EDGE + LABEL + column * (self.column + GAP)
