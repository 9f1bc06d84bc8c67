"""One scene: what stands where, in which colours, on which background, in which style."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from efface_picturebook import world


@dataclass(frozen=True)
class Figure:
    """One object in a scene; positions and sizes in pixels of the finished picture.

    `colour` is None for an object in its own fixed colour. `wears` is a garment and its colour.
    """

    thing: str
    colour: str | None
    centre: tuple[float, float]
    half: float
    mirrored: bool = False
    pattern: str | None = None
    wears: tuple[str, str] | None = None


@dataclass(frozen=True)
class Scene:
    """Figures from left to right on a background, drawn in a style."""

    figures: tuple[Figure, ...]
    background: str
    style: str


SIZE = 64
PAIR_SHARE = 0.42
DRESSED_SHARE = 0.45
STYLED_SHARE = 0.36
WHITE_SHARE = 0.35


def imagine(random: Random) -> Scene:
    """Draw a scene from the world's distribution."""
    names = [thing.name for thing in world.THINGS]
    if random.random() < PAIR_SHARE:
        left, right = random.sample(names, 2)
        figures: tuple[Figure, ...] = (
            _place(random, left, (16.5, 32), half=14.3, shift=(1.0, 3.5)),
            _place(random, right, (47.5, 32), half=14.3, shift=(1.0, 3.5)),
        )
    else:
        figures = (_dress(random, _place(random, random.choice(names), (32, 32), half=24.0, shift=(4, 4))),)
    styled = random.random() < STYLED_SHARE
    style = random.choice(world.STYLES) if styled else world.PLAIN
    plain = random.random() < WHITE_SHARE
    return Scene(figures, "white" if plain else random.choice(tuple(world.BACKGROUNDS)), style)


def _place(
    random: Random, name: str, centre: tuple[float, float], *, half: float, shift: tuple[float, float]
) -> Figure:
    x = centre[0] + random.uniform(-shift[0], shift[0])
    y = centre[1] + random.uniform(-shift[1], shift[1])
    size = half * random.uniform(0.9, 1.06)
    return Figure(name, _colour(random, name), (x, y), size, mirrored=random.random() < 0.2)


def _colour(random: Random, name: str) -> str | None:
    natural = world.thing(name).natural
    if random.random() < 0.45:
        return random.choice(natural) if natural else None
    return random.choice(tuple(world.COLOURS))


def _dress(random: Random, figure: Figure) -> Figure:
    """Sometimes make a cat or dog a named character, or give it some of a character's parts."""
    if figure.thing not in world.DRESSED or random.random() > DRESSED_SHARE:
        return figure
    lower = (figure.centre[0], figure.centre[1] + (2.0 if random.random() < 0.5 else 0.0))
    who = random.choice([c for c in world.CHARACTERS if c.thing == figure.thing])
    parts = random.random()
    if parts < 0.6:
        return _figure_of(who, figure, lower)
    colour = random.choice(tuple(world.COLOURS))
    wears = (random.choice(world.GARMENTS), colour) if parts > 0.75 else None
    pattern = None if parts > 0.85 else random.choice(world.PATTERNS)
    return Figure(figure.thing, figure.colour, lower, figure.half * 0.9, figure.mirrored, pattern, wears)


def _figure_of(who: world.Character, figure: Figure, centre: tuple[float, float]) -> Figure:
    wears = (who.wears, who.wears_colour)
    return Figure(who.thing, who.colour, centre, figure.half * 0.9, figure.mirrored, who.pattern, wears)
