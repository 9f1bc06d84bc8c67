"""How each object looks: a handful of polygons and ellipses, with silhouettes told apart at 30 pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import cos, pi, sin
from types import MappingProxyType

from efface_picturebook.brush import Brush
from efface_picturebook.world import RGB

INK: RGB = (28, 26, 34)
WHITE: RGB = (252, 252, 250)
BONE: RGB = (244, 240, 228)
PINK: RGB = (244, 150, 165)
GLASS: RGB = (190, 228, 245)
WOOD: RGB = (115, 72, 42)
LEAF: RGB = (60, 150, 65)
GOLD: RGB = (250, 205, 60)


def cat(b: Brush) -> None:
    """A face with pointed ears and whiskers."""
    for s in (-1, 1):
        b.polygon((s * 0.92, -0.98), (s * 0.80, 0.20), (s * 0.08, -0.42))
        b.polygon((s * 0.80, -0.72), (s * 0.70, -0.20), (s * 0.34, -0.42), fill=PINK)
    b.ellipse(0, 0.22, 0.86, 0.70)
    for s in (-1, 1):
        b.ellipse(s * 0.36, 0.08, 0.19, 0.22, fill=(215, 240, 120))
        b.ellipse(s * 0.36, 0.08, 0.08, 0.21, fill=INK)
        for y in (0.38, 0.58):
            b.polygon((s * 0.35, 0.46), (s * 1.0, y - 0.05), (s * 1.0, y + 0.03), fill=INK)
    b.polygon((-0.14, 0.36), (0.14, 0.36), (0, 0.52), fill=PINK)


def dog(b: Brush) -> None:
    """A long face with hanging ears, a pale muzzle, a big nose and a tongue."""
    b.ellipse(0, -0.12, 0.62, 0.72)
    b.ellipse(0, 0.42, 0.50, 0.46, fill=b.light)
    for s in (-1, 1):
        b.ellipse(s * 0.74, 0.0, 0.24, 0.66, fill=b.dark)
        b.ellipse(s * 0.26, -0.22, 0.12, 0.14, fill=INK)
    b.polygon((-0.15, 0.58), (0.15, 0.58), (0.12, 0.96), (-0.12, 0.96), fill=(230, 70, 95))
    b.ellipse(0, 0.28, 0.24, 0.17, fill=INK)


def fish(b: Brush) -> None:
    """Seen from the side, with a forked tail."""
    b.polygon((0.35, 0.0), (1.0, -0.58), (0.84, 0.0), (1.0, 0.58), fill=b.dark)
    b.polygon((-0.35, -0.38), (0.05, -0.82), (0.32, -0.30), fill=b.dark)
    b.polygon((-0.15, 0.38), (0.05, 0.72), (0.25, 0.32), fill=b.dark)
    b.ellipse(-0.22, 0.0, 0.76, 0.50)
    b.ellipse(-0.22, 0.24, 0.50, 0.22, fill=b.light)
    b.polygon((-0.10, -0.12), (0.28, 0.0), (-0.10, 0.20), fill=b.dark)
    b.ellipse(-0.60, -0.12, 0.15, 0.15, fill=WHITE)
    b.ellipse(-0.63, -0.12, 0.08, 0.08, fill=INK)


def bird(b: Brush) -> None:
    """Seen from the side, standing on two legs."""
    for x in (-0.08, 0.22):
        b.box(x - 0.05, 0.50, x + 0.05, 0.96, fill=(225, 130, 40))
    b.polygon((0.35, 0.05), (1.0, -0.30), (0.98, 0.10), (0.40, 0.45), fill=b.dark)
    b.polygon((-0.78, -0.52), (-1.0, -0.32), (-0.66, -0.22), fill=GOLD)
    b.ellipse(0.08, 0.20, 0.56, 0.44)
    b.ellipse(-0.44, -0.44, 0.38, 0.38)
    b.ellipse(-0.16, 0.34, 0.28, 0.24, fill=b.light)
    b.polygon((0.0, -0.05), (0.72, 0.12), (0.20, 0.48), fill=b.dark)
    b.ellipse(-0.54, -0.50, 0.10, 0.10, fill=INK)


def car(b: Brush) -> None:
    """Seen from the side, with two wheels and a cabin."""
    b.polygon((-0.60, 0.0), (-0.36, -0.52), (0.34, -0.52), (0.62, 0.0))
    b.polygon((-0.44, -0.04), (-0.28, -0.38), (-0.05, -0.38), (-0.05, -0.04), fill=GLASS)
    b.polygon((0.07, -0.04), (0.07, -0.38), (0.27, -0.38), (0.45, -0.04), fill=GLASS)
    b.polygon((-1.0, 0.02), (-0.90, -0.06), (0.92, -0.06), (1.0, 0.08), (1.0, 0.42), (-1.0, 0.42))
    b.ellipse(-0.90, 0.12, 0.09, 0.09, fill=GOLD)
    for x in (-0.52, 0.52):
        b.ellipse(x, 0.44, 0.27, 0.27, fill=INK)
        b.ellipse(x, 0.44, 0.12, 0.12, fill=(205, 208, 212))


def house(b: Brush) -> None:
    """A gable, a door, two windows, a chimney."""
    b.box(0.38, -0.86, 0.62, -0.30, fill=WOOD)
    b.box(-0.72, -0.12, 0.72, 0.92)
    b.polygon((-1.0, -0.06), (0.0, -0.94), (1.0, -0.06), fill=b.dark)
    b.box(-0.17, 0.36, 0.17, 0.92, fill=WOOD)
    for x in (-0.46, 0.46):
        b.box(x - 0.16, 0.12, x + 0.16, 0.42, fill=GLASS)


def tree(b: Brush) -> None:
    """A conifer in three tiers."""
    b.box(-0.15, 0.55, 0.15, 0.98, fill=WOOD)
    b.polygon((-0.80, 0.66), (0.0, -0.10), (0.80, 0.66), fill=b.dark)
    b.polygon((-0.64, 0.20), (0.0, -0.56), (0.64, 0.20))
    b.polygon((-0.46, -0.26), (0.0, -0.98), (0.46, -0.26), fill=b.light)


def flower(b: Brush) -> None:
    """Six round petals on a stem with two leaves."""
    b.box(-0.06, 0.10, 0.06, 0.98, fill=LEAF)
    b.ellipse(-0.32, 0.72, 0.28, 0.12, fill=LEAF)
    b.ellipse(0.32, 0.60, 0.28, 0.12, fill=LEAF)
    for k in range(6):
        b.ellipse(0.42 * cos(k * pi / 3), -0.34 + 0.42 * sin(k * pi / 3), 0.24, 0.24)
    b.ellipse(0, -0.34, 0.25, 0.25, fill=GOLD)


def boat(b: Brush) -> None:
    """A hull with a mast and two sails."""
    b.box(-0.05, -0.98, 0.05, 0.40, fill=WOOD)
    b.polygon((0.09, -0.92), (0.09, 0.28), (0.82, 0.28), fill=WHITE)
    b.polygon((-0.10, -0.74), (-0.10, 0.28), (-0.68, 0.28), fill=b.light)
    b.polygon((-1.0, 0.38), (1.0, 0.38), (0.66, 0.90), (-0.66, 0.90))


def mushroom(b: Brush) -> None:
    """A spotted cap on a pale stem."""
    b.polygon((-0.22, 0.0), (0.22, 0.0), (0.34, 0.94), (-0.34, 0.94), fill=BONE)
    dome = [(0.96 * cos(pi + k * pi / 16), 0.12 + 0.98 * sin(pi + k * pi / 16)) for k in range(17)]
    b.polygon(*dome)
    for x, y, r in ((-0.48, -0.20, 0.16), (0.08, -0.52, 0.19), (0.52, -0.12, 0.14)):
        b.ellipse(x, y, r, r, fill=WHITE)


def robot(b: Brush) -> None:
    """A square head with an antenna on a square body with arms and legs."""
    b.box(-0.04, -0.98, 0.04, -0.70, fill=INK)
    b.ellipse(0, -0.92, 0.11, 0.10, fill=(235, 60, 60))
    for s in (-1, 1):
        b.box(s * 0.74 - 0.14, 0.02, s * 0.74 + 0.14, 0.56, fill=b.dark)
        b.box(s * 0.28 - 0.15, 0.60, s * 0.28 + 0.15, 0.98, fill=b.dark)
    b.box(-0.56, 0.0, 0.56, 0.70)
    b.box(-0.46, -0.74, 0.46, -0.06)
    for s in (-1, 1):
        b.box(s * 0.22 - 0.12, -0.54, s * 0.22 + 0.12, -0.32, fill=(150, 250, 250))
    b.box(-0.24, -0.20, 0.24, -0.13, fill=INK)
    b.box(-0.28, 0.18, 0.28, 0.48, fill=b.light)


def skull(b: Brush) -> None:
    """A dome with empty eyes above a row of teeth."""
    b.box(-0.46, 0.30, 0.46, 0.92)
    b.ellipse(0, -0.16, 0.86, 0.76)
    for s in (-1, 1):
        b.ellipse(s * 0.36, -0.08, 0.25, 0.27, fill=INK)
    b.polygon((0, 0.18), (0.13, 0.44), (-0.13, 0.44), fill=INK)
    for x in (-0.23, 0.0, 0.23):
        b.box(x - 0.035, 0.60, x + 0.035, 0.92, fill=INK)


def stripes(b: Brush) -> None:
    """Three dark stripes over a face."""
    for x in (-0.24, 0.0, 0.24):
        b.polygon((x - 0.08, -0.44), (x + 0.08, -0.44), (x, -0.10), fill=INK)
    for s in (-1, 1):
        b.polygon((s * 0.82, 0.12), (s * 0.56, 0.22), (s * 0.84, 0.30), fill=INK)


def spots(b: Brush) -> None:
    """Dark spots over a face."""
    for x, y, r in ((-0.28, -0.52, 0.15), (0.22, -0.60, 0.12), (0.44, -0.12, 0.11), (-0.34, 0.22, 0.10)):
        b.ellipse(x, y, r, r, fill=INK)


def hat(b: Brush) -> None:
    """A brimmed hat on top of a face."""
    b.box(-0.36, -1.16, 0.36, -0.56)
    b.box(-0.64, -0.62, 0.64, -0.42)


def scarf(b: Brush) -> None:
    """A scarf below a face, one end hanging."""
    b.polygon((-0.70, 0.74), (0.70, 0.74), (0.60, 1.06), (-0.60, 1.06))
    b.box(0.22, 0.90, 0.52, 1.30)


FIGURES: Mapping[str, Callable[[Brush], None]] = MappingProxyType(
    {f.__name__: f for f in (cat, dog, fish, bird, car, house, tree, flower, boat, mushroom, robot, skull)}
)
PATTERNS: Mapping[str, Callable[[Brush], None]] = MappingProxyType({"striped": stripes, "spotted": spots})
GARMENTS: Mapping[str, Callable[[Brush], None]] = MappingProxyType({"hat": hat, "scarf": scarf})
