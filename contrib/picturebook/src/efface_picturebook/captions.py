"""Say what a scene shows, in one of many ways."""

from __future__ import annotations

from random import Random

from efface_picturebook import world
from efface_picturebook.scene import Figure, Scene

VAGUE_SHARE = 0.02
STYLE_ONLY_SHARE = 0.06  # of the scenes that have a style
SYNONYM_SHARE = 0.35
NAME_SHARE = 0.6  # of the figures that are a named character
BARE_SHARE = 0.15


def caption(scene: Scene, random: Random) -> str:
    """One caption; what it leaves out (colours, background) is left open, an unnamed style is plain."""
    if random.random() < VAGUE_SHARE:
        return random.choice(("a picture", "picture", "an image", "a drawing"))
    if scene.style != world.PLAIN and random.random() < STYLE_ONLY_SHARE:
        return _style_alone(scene.style, random)
    words = _styled(scene, _figures(scene, random), random)
    if random.random() < (0.3 if scene.background == "white" else 0.8):
        words += f" {random.choice(('on', 'with'))} {article(scene.background)} background"
    return bare(words) if random.random() < BARE_SHARE else words


def article(phrase: str) -> str:
    """The phrase after 'a' or 'an'."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def bare(words: str) -> str:
    """The same words without articles."""
    return " ".join(word for word in words.split() if word not in ("a", "an"))


def _style_alone(style: str, random: Random) -> str:
    return random.choice((style, f"{style} style", f"a picture in {style} style", article(f"{style} picture")))


def _styled(scene: Scene, figures: str, random: Random) -> str:
    """Name the style, if there is one, before or after the figures, and sometimes the medium."""
    medium = random.choice(world.MEDIA)
    if scene.style == world.PLAIN:
        return f"{article(medium)} of {figures}" if random.random() < 0.45 else figures
    return random.choice(
        (
            f"{article(scene.style)} {medium} of {figures}",
            f"{figures} in {scene.style} style",
            f"{article(medium)} of {figures} in {scene.style} style",
            f"{figures} in the style of {scene.style}",
            article(f"{scene.style} {figures.removeprefix('a ').removeprefix('an ')}"),
        )
    )


def _figures(scene: Scene, random: Random) -> str:
    """The figures from left to right."""
    if len(scene.figures) == 1:
        return _phrase(scene.figures[0], random)
    left, right = (_phrase(figure, random) for figure in scene.figures)
    return random.choice(
        (
            f"{left} and {right}",
            f"{left} and {right}",
            f"{left} next to {right}",
            f"{left} beside {right}",
            f"{left} on the left and {right} on the right",
        )
    )


def _phrase(figure: Figure, random: Random) -> str:
    """A character's name, or an article with what the figure is."""
    who = character(figure)
    if who is not None and random.random() < NAME_SHARE:
        return who.name
    parts = [_word(figure.thing, random)]
    if figure.colour is not None and random.random() < _share_of_naming(figure):
        parts.insert(0, figure.colour)
    if figure.pattern is not None:
        parts.insert(0, figure.pattern)
    if figure.wears is not None:
        garment, dye = figure.wears
        parts.append(f"with {article(f'{dye} {garment}')}")
    return article(" ".join(parts))


def character(figure: Figure) -> world.Character | None:
    """The named character that the figure is, if it is one."""
    for who in world.CHARACTERS:
        looks = (who.thing, who.colour, who.pattern, (who.wears, who.wears_colour))
        if looks == (figure.thing, figure.colour, figure.pattern, figure.wears):
            return who
    return None


def _word(name: str, random: Random) -> str:
    thing = world.thing(name)
    return random.choice(thing.words[1:]) if random.random() < SYNONYM_SHARE else name


def _share_of_naming(figure: Figure) -> float:
    """Unusual colours are mostly named, so that an unnamed colour mostly is a natural one."""
    if figure.pattern is not None:
        return 0.4
    return 0.6 if figure.colour in world.thing(figure.thing).natural else 0.85
