"""Draw a scene: a 64 x 64 picture and, on request, the region of every object in it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from efface_picturebook import world
from efface_picturebook.brush import Brush, Ellipse, Frame, Polygon, mix, paint, stamp
from efface_picturebook.figures import BONE, FIGURES, GARMENTS, PATTERNS
from efface_picturebook.scene import SIZE, Figure, Scene
from efface_picturebook.styles import STYLES

OVERSAMPLE = 4
OUTLINE = 1.0  # pixels of the finished picture
INK = (24, 20, 30)


def render(scene: Scene) -> Image.Image:
    """The scene as an RGB picture."""
    canvas = Image.new("RGB", (SIZE * OVERSAMPLE,) * 2, world.BACKGROUNDS[scene.background])
    draw = ImageDraw.Draw(canvas)
    for figure in scene.figures:
        shapes, frame = _shapes(figure), _frame(figure)
        stamp(draw, shapes, frame, INK, OUTLINE * OVERSAMPLE)
        paint(draw, shapes, frame)
    return STYLES[scene.style](canvas.reduce(OVERSAMPLE))


def regions(scene: Scene) -> NDArray[np.bool_]:
    """Which pixels each figure touches, as (figures, 64, 64), in the order of `scene.figures`."""
    return np.stack([_region(figure) for figure in scene.figures])


def _region(figure: Figure) -> NDArray[np.bool_]:
    canvas = Image.new("L", (SIZE * OVERSAMPLE,) * 2)
    stamp(ImageDraw.Draw(canvas), _shapes(figure), _frame(figure), 255, OUTLINE * OVERSAMPLE)
    return np.asarray(canvas.reduce(OVERSAMPLE)) > 0


def _frame(figure: Figure) -> Frame:
    x, y = figure.centre
    return Frame((x * OVERSAMPLE, y * OVERSAMPLE), figure.half * OVERSAMPLE, figure.mirrored)


def _shapes(figure: Figure) -> list[Polygon | Ellipse]:
    colour = BONE if figure.colour is None else world.COLOURS[figure.colour]
    if figure.thing == "skull" and figure.colour is not None:
        colour = mix(colour, BONE, 0.35)
    brush = Brush(colour)
    FIGURES[figure.thing](brush)
    if figure.pattern is not None:
        PATTERNS[figure.pattern](brush)
    if figure.wears is not None:
        garment, dye = figure.wears
        brush.colour = world.COLOURS[dye]
        GARMENTS[garment](brush)
    return brush.shapes
