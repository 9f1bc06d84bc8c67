"""Pictures whose content is known: rendered scenes, and pictures of nothing that look as if they were of something."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from efface_picturebook import world
from efface_picturebook.brush import Brush, Frame, paint, stamp
from efface_picturebook.captions import character
from efface_picturebook.detector import STYLES, THINGS
from efface_picturebook.render import INK, OUTLINE, OVERSAMPLE, regions, render
from efface_picturebook.scene import SIZE, Scene, imagine
from efface_picturebook.styles import STYLES as DRAWN_IN

NOTHING = -1
CAST_EVERY = 6  # one scene in so many shows a cat or dog with a pattern or a garment: characters, and nearly so
BACKGROUNDS = tuple(world.BACKGROUNDS)


@dataclass(frozen=True)
class Gallery:
    """n pictures, uint8 (n, 3, 64, 64), and what they show.

    `masks` bool (n, 2, 64, 64) and `things` (n, 2) of up to two figures, `who` (n,) the character that the first one
    is, `style` and `background` (n,): indices, -1 for nothing or for what cannot be told.
    """

    pictures: Tensor
    masks: Tensor
    things: Tensor
    who: Tensor
    style: Tensor
    background: Tensor

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, chosen: Tensor | slice) -> Gallery:
        return Gallery(*(field[chosen] for field in vars(self).values()))


def hang(scenes: Iterable[Scene]) -> Gallery:
    """Render scenes."""
    return _gallery([_entry(scene, np.asarray(render(scene))) for scene in scenes])


def scene(seed: str, index: int) -> Scene:
    """The scene of picture `index`: from the world's distribution, with more characters in it."""
    random = Random(f"{seed}-{index}")
    drawn = imagine(random)
    while index % CAST_EVERY == 0 and not (drawn.figures[0].pattern or drawn.figures[0].wears):
        drawn = imagine(random)
    return drawn


def clutter(seed: str, count: int) -> Gallery:
    """Random polygons and ellipses in the world's colours, on its backgrounds and in its styles: no object."""
    entries = []
    for i in range(count):
        random = Random(f"{seed}-{i}")
        empty = Scene((), random.choice(BACKGROUNDS), random.choice(STYLES))
        entries.append(_entry(empty, np.asarray(DRAWN_IN[empty.style](_scribble(random, empty.background)))))
    return _gallery(entries)


def empties() -> Tensor:
    """Every background in every style without any figure, uint8 (6, 5, 3, 64, 64)."""
    drawn = [[np.asarray(render(Scene((), ground, style))) for style in STYLES] for ground in BACKGROUNDS]
    return torch.from_numpy(np.array(drawn)).permute(0, 1, 4, 2, 3).contiguous()


def nothing(pictures: Tensor) -> Gallery:
    """Pictures (n, 3, 64, 64) that show nothing, in no style."""
    count = len(pictures)
    none = torch.full((count,), NOTHING)
    masks = torch.zeros(count, 2, SIZE, SIZE, dtype=torch.bool)
    plain = torch.full((count,), STYLES.index(world.PLAIN))
    return Gallery(pictures, masks, none[:, None].expand(-1, 2), none, plain, torch.zeros(count, dtype=torch.long))


def together(*galleries: Gallery) -> Gallery:
    """One gallery after the other."""
    rows = zip(*(vars(gallery).values() for gallery in galleries), strict=True)
    return Gallery(*(torch.cat(fields) for fields in rows))


Entry = tuple[NDArray[np.uint8], NDArray[np.bool_], list[int], int, int, int]


def _entry(scene: Scene, pixels: NDArray[np.uint8]) -> Entry:
    masks = np.zeros((2, SIZE, SIZE), np.bool_)
    if scene.figures:
        masks[: len(scene.figures)] = regions(scene)
    things = [THINGS.index(figure.thing) for figure in scene.figures] + [NOTHING] * (2 - len(scene.figures))
    who = character(scene.figures[0]) if scene.figures else None
    return (
        pixels,
        masks,
        things,
        NOTHING if who is None else world.CHARACTERS.index(who),
        STYLES.index(scene.style),
        BACKGROUNDS.index(scene.background),
    )


def _gallery(entries: list[Entry]) -> Gallery:
    pixels, masks, *numbers = zip(*entries, strict=True)
    pictures = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()
    return Gallery(pictures, torch.from_numpy(np.stack(masks)), *(torch.tensor(column) for column in numbers))


def _scribble(random: Random, background: str) -> Image.Image:
    """None, one or two heaps of shapes, outlined as figures are."""
    canvas = Image.new("RGB", (SIZE * OVERSAMPLE,) * 2, world.BACKGROUNDS[background])
    draw = ImageDraw.Draw(canvas)
    layouts: tuple[tuple[tuple[float, float], ...], ...] = ((), ((32, 24),), ((16.5, 14), (47.5, 14)))
    for x, half in random.choices(layouts, (0.15, 0.5, 0.35))[0]:
        frame = Frame(((x + random.uniform(-3, 3)) * OVERSAMPLE, 32 * OVERSAMPLE), half * OVERSAMPLE)
        shapes = _heap(random).shapes
        stamp(draw, shapes, frame, INK, OUTLINE * OVERSAMPLE)
        paint(draw, shapes, frame)
    return canvas.reduce(OVERSAMPLE)


def _heap(random: Random) -> Brush:
    """Two to nine shapes in unit coordinates, the first of them large."""
    brush = Brush(random.choice(tuple(world.COLOURS.values())))
    fills = (brush.colour, brush.dark, brush.light, INK, *world.COLOURS.values())
    for i in range(random.randint(2, 9)):
        reach = 0.7 if i else 0.15
        x, y = random.uniform(-reach, reach), random.uniform(-reach, reach)
        size = random.uniform(0.15, 0.6) if i else random.uniform(0.6, 1.0)
        fill = random.choice(fills)
        if random.random() < 0.5:
            brush.ellipse(x, y, size * random.uniform(0.4, 1), size * random.uniform(0.4, 1), fill)
        else:
            corners = [(x + random.uniform(-size, size), y + random.uniform(-size, size)) for _ in range(4)]
            brush.polygon(*corners[: random.choice((3, 4))], fill=fill)
    return brush
