"""Pictures are a function of the scene, and masks cover what is drawn."""

from dataclasses import replace
from random import Random

import numpy as np
import pytest

from efface_picturebook import world
from efface_picturebook.figures import FIGURES
from efface_picturebook.render import regions, render
from efface_picturebook.scene import Figure, Scene, imagine

NAMES = [thing.name for thing in world.THINGS]
STYLES = (world.PLAIN, *world.STYLES)


def one(thing: str, style: str = world.PLAIN, background: str = "white", **looks: object) -> Scene:
    figure = Figure(thing, "red", (32, 32), 22, **looks)  # type: ignore[arg-type]
    return Scene((figure,), background, style)


def pair() -> Scene:
    left, right = Figure("cat", "red", (16, 32), 14), Figure("car", "blue", (48, 32), 14)
    return Scene((left, right), "white", world.PLAIN)


def test_the_same_seed_draws_the_same_scene_and_picture() -> None:
    first, second = imagine(Random(7)), imagine(Random(7))
    assert first == second
    assert render(first).tobytes() == render(second).tobytes()


def test_other_seeds_draw_other_pictures() -> None:
    assert len({render(imagine(Random(i))).tobytes() for i in range(50)}) > 45


@pytest.mark.parametrize("style", STYLES)
def test_a_picture_is_64_by_64_rgb_in_every_style(style: str) -> None:
    picture = render(one("house", style))
    assert (picture.size, picture.mode) == ((64, 64), "RGB")


def test_every_style_looks_different() -> None:
    assert len({render(one("house", style)).tobytes() for style in STYLES}) == len(STYLES)


def test_every_object_has_a_drawing() -> None:
    assert list(FIGURES) == NAMES


@pytest.mark.parametrize("thing", NAMES)
def test_a_mask_covers_everything_that_is_drawn(thing: str) -> None:
    scene = one(thing)
    empty = np.asarray(render(replace(scene, figures=())))
    drawn = (np.asarray(render(scene)) != empty).any(-1)
    assert drawn.any()
    assert not (drawn & ~regions(scene)[0]).any()


@pytest.mark.parametrize("thing", NAMES)
def test_a_mask_is_no_larger_than_what_is_drawn(thing: str) -> None:
    scene = one(thing, background="pink")
    empty = np.asarray(render(replace(scene, figures=())))
    drawn = (np.asarray(render(scene)) != empty).any(-1)
    assert (regions(scene)[0] & ~drawn).sum() <= 2


def test_every_figure_of_a_scene_has_its_own_mask() -> None:
    left, right = regions(pair())
    assert not (left & right).any()
    assert left[:, :32].sum() == left.sum()


def test_silhouettes_of_two_objects_differ() -> None:
    masks = {name: regions(one(name))[0] for name in NAMES}
    for i, first in enumerate(NAMES):
        for second in NAMES[:i]:
            both = (masks[first] & masks[second]).sum() / (masks[first] | masks[second]).sum()
            assert both < 0.9, (first, second)


def test_pattern_garment_and_mirroring_change_the_picture() -> None:
    looks: list[dict[str, object]] = [
        {},
        {"pattern": "striped"},
        {"pattern": "spotted"},
        {"wears": ("hat", "blue")},
        {"wears": ("scarf", "blue")},
    ]
    assert len({render(one("cat", **look)).tobytes() for look in looks}) == len(looks)
    assert render(one("bird")).tobytes() != render(one("bird", mirrored=True)).tobytes()


def test_a_mirrored_mask_is_the_mask_mirrored() -> None:
    plain, mirrored = regions(one("bird"))[0], regions(one("bird", mirrored=True))[0]
    assert (plain[:, ::-1] ^ mirrored).sum() < 0.08 * plain.sum()


def test_imagined_figures_stay_on_the_picture() -> None:
    for seed in range(300):
        for mask in regions(imagine(Random(seed))):
            edge = mask[0].sum() + mask[-1].sum() + mask[:, 0].sum() + mask[:, -1].sum()
            assert edge < 0.12 * mask.sum()
