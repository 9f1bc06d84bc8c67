"""Pictures of a training: how the losses fell, and what the table learned."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from efface.report.illustration import Illustration

EDGE, CELL, PLOT = 44, 26, (360, 180)
INK, FAINT, LINES = "#222222", "#bbbbbb", {"erase": "#b03a2e", "retain": "#1f618d"}
WEAK, NEUTRAL, STRONG = (33, 102, 172), (247, 247, 247), (178, 24, 43)


def illustrated(report: Mapping[str, Any]) -> list[Illustration]:
    """Loss curves and table of each concept, from the report of a fit; nothing of an imported one."""
    found = []
    for concept, own in report.items():
        if own.get("losses"):
            about = f"{concept}: losses over the steps of each stage, on a logarithmic scale"
            found.append(Illustration(about, loss_curves(own["losses"])))
        if own.get("table"):
            about = f"{concept}: the learned table, layers from left to right, noisiest timesteps on top; white is 1"
            found.append(Illustration(about, time_layer_table(own["table"])))
    return found


def loss_curves(losses: Mapping[str, Mapping[str, Sequence[float]]]) -> Image.Image:
    """Both losses over the steps, on a logarithmic scale, one panel for each stage."""
    width, height = PLOT
    sheet = Image.new("RGB", (EDGE + (width + EDGE) * len(losses), height + 2 * EDGE), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (stage, curves) in enumerate(losses.items()):
        _panel(pen, (EDGE + number * (width + EDGE), EDGE), stage, curves)
    return sheet


def time_layer_table(table: Sequence[Sequence[float]]) -> Image.Image:
    """The table as a heat map: noisiest bin on top, mid output last; one is white, more is red, less is blue."""
    rows, columns = len(table), len(table[0])
    sheet = Image.new("RGB", (2 * EDGE + columns * CELL, 2 * EDGE + rows * CELL), "white")
    pen = ImageDraw.Draw(sheet)
    reach = max(max(abs(value - 1) for row in table for value in row), 1e-6)
    _write(pen, (EDGE, 6), f"weight by layer (across) and bin (down), 1 +- {reach:.2g}")
    for row, values in enumerate(reversed(table)):
        _write(pen, (8, EDGE + row * CELL + 7), str(rows - 1 - row))
        for column, value in enumerate(values):
            left, top = EDGE + column * CELL, EDGE + row * CELL
            pen.rectangle((left, top, left + CELL - 2, top + CELL - 2), fill=_colour((value - 1) / reach))
    for column in range(columns):
        name = "mid" if column == columns - 1 else str(column)
        _write(pen, (EDGE + column * CELL + 4, EDGE + rows * CELL + 4), name)
    return sheet


def _panel(
    pen: ImageDraw.ImageDraw, corner: tuple[int, int], stage: str, curves: Mapping[str, Sequence[float]]
) -> None:
    left, top = corner
    width, height = PLOT
    values = [value for curve in curves.values() for value in curve if value > 0]
    if not values:
        return
    low, high = (math.log10(end(values)) for end in (min, max))
    pen.rectangle((left, top, left + width, top + height), outline=FAINT)
    _write(pen, (left, top - 20), stage)
    for place, (name, curve) in enumerate(curves.items()):
        colour = LINES.get(name, INK)
        _write(pen, (left + 70 + 70 * place, top - 20), name, colour)
        _line(
            pen, corner, [math.log10(value) if value > 0 else low for value in curve], low, high, LINES.get(name, INK)
        )
    for value, height_of in ((high, top), (low, top + height - 12)):
        _write(pen, (left - 40, height_of), f"{10**value:.1g}")


def _line(
    pen: ImageDraw.ImageDraw, corner: tuple[int, int], values: Sequence[float], low: float, high: float, colour: str
) -> None:
    width, height = PLOT
    across, up = width / max(len(values) - 1, 1), height / max(high - low, 1e-9)
    points = [(corner[0] + across * step, corner[1] + up * (high - value)) for step, value in enumerate(values)]
    pen.line(points, fill=colour, width=2)


def _colour(share: float) -> tuple[int, ...]:
    """From blue at -1 through white at 0 to red at 1."""
    end = STRONG if share > 0 else WEAK
    return tuple(round(near + (far - near) * abs(share)) for near, far in zip(NEUTRAL, end, strict=True))


def _write(pen: ImageDraw.ImageDraw, place: tuple[int, int], text: str, colour: str = INK) -> None:
    pen.text(place, text, fill=colour, font=ImageFont.load_default(11))
