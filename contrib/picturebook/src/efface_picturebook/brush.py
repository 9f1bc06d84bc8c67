"""Draw in an object's own coordinates: x and y from -1 to 1, y downwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import ImageDraw

from efface_picturebook.world import RGB

Point = tuple[float, float]


def mix(one: RGB, other: RGB, share: float) -> RGB:
    """`one` with `share` of `other` in it."""
    r, g, b = (round(a + (o - a) * share) for a, o in zip(one, other, strict=True))
    return r, g, b


@dataclass(frozen=True)
class Polygon:
    """A filled polygon in unit coordinates."""

    points: tuple[Point, ...]
    fill: RGB


@dataclass(frozen=True)
class Ellipse:
    """A filled ellipse in unit coordinates: centre and radii."""

    centre: Point
    radii: Point
    fill: RGB


@dataclass
class Brush:
    """Collects the shapes of one figure, back to front; `outline` marks where the silhouette ends."""

    colour: RGB
    shapes: list[Polygon | Ellipse] = field(default_factory=list)

    @property
    def dark(self) -> RGB:
        """A shade of the main colour."""
        return mix(self.colour, (0, 0, 0), 0.38)

    @property
    def light(self) -> RGB:
        """A tint of the main colour."""
        return mix(self.colour, (255, 255, 255), 0.55)

    def polygon(self, *points: Point, fill: RGB | None = None) -> None:
        """Add a polygon, in the main colour unless told."""
        self.shapes.append(Polygon(points, fill or self.colour))

    def box(self, left: float, top: float, right: float, bottom: float, fill: RGB | None = None) -> None:
        """Add an upright rectangle."""
        self.polygon((left, top), (right, top), (right, bottom), (left, bottom), fill=fill)

    def ellipse(self, x: float, y: float, rx: float, ry: float, fill: RGB | None = None) -> None:
        """Add an ellipse around (x, y)."""
        self.shapes.append(Ellipse((x, y), (rx, ry), fill or self.colour))


@dataclass(frozen=True)
class Frame:
    """Where a figure stands on the canvas: centre and half size in canvas pixels, mirrored or not."""

    centre: Point
    half: float
    mirrored: bool = False

    def at(self, point: Point) -> Point:
        """Canvas position of a point in unit coordinates."""
        x = -point[0] if self.mirrored else point[0]
        return self.centre[0] + x * self.half, self.centre[1] + point[1] * self.half


def paint(draw: ImageDraw.ImageDraw, shapes: Sequence[Polygon | Ellipse], frame: Frame) -> None:
    """Fill the shapes, back to front."""
    for shape in shapes:
        _fill(draw, shape, frame, shape.fill, 0)


def stamp(
    draw: ImageDraw.ImageDraw, shapes: Sequence[Polygon | Ellipse], frame: Frame, fill: RGB | int, grow: float
) -> None:
    """Draw all shapes in one colour, grown by `grow` canvas pixels: an outline, or a mask."""
    for shape in shapes:
        _fill(draw, shape, frame, fill, grow)


def _fill(draw: ImageDraw.ImageDraw, shape: Polygon | Ellipse, frame: Frame, fill: RGB | int, grow: float) -> None:
    if isinstance(shape, Ellipse):
        x, y = frame.at(shape.centre)
        rx, ry = shape.radii[0] * frame.half + grow, shape.radii[1] * frame.half + grow
        draw.ellipse((x - rx, y - ry, x + rx, y + ry), fill=fill)
        return
    points = [frame.at(p) for p in shape.points]
    draw.polygon(points, fill=fill)
    if grow:
        draw.line([*points, *points[:2]], fill=fill, width=round(2 * grow), joint="curve")
