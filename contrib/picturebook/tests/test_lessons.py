"""What the detector learns from is labelled by what is left to see."""

import pytest
import torch

from efface_picturebook import distortion, gallery, world
from efface_picturebook.detector import SEEN, STYLES, THINGS, Detector, smooth_maximum
from efface_picturebook.education import operating_point
from efface_picturebook.gallery import NOTHING, Gallery
from efface_picturebook.lesson import exam, lesson, loss
from efface_picturebook.loop import generator
from efface_picturebook.scene import Figure, Scene

PIM = Figure("cat", "orange", (32, 33), 22, pattern="striped", wears=("hat", "red"))
CAT, CAR = Figure("cat", "red", (17, 32), 14), Figure("car", "blue", (47, 32), 14)


@pytest.fixture(scope="module")
def scenes() -> Gallery:
    return gallery.hang(gallery.scene("lessons", i) for i in range(40))


def hung(*figures: Figure, style: str = world.PLAIN) -> Gallery:
    return gallery.hang([Scene(figures, "white", style)])


def floats(scenes: Gallery) -> torch.Tensor:
    return scenes.pictures.float() / 255


def named(row: torch.Tensor) -> set[str]:
    return {name for name, flag in zip(SEEN, row.tolist(), strict=True) if flag}


def test_an_undistorted_scene_is_labelled_with_its_figures_and_their_regions() -> None:
    taught = exam(hung(CAT, CAR, style="neon"))
    assert named(taught.presence[0]) == {"cat", "car"}
    assert taught.style.tolist() == [STYLES.index("neon")]
    assert torch.equal(taught.pictures, floats(hung(CAT, CAR, style="neon")) * 2 - 1)
    columns = taught.region[0].sum(1)
    assert columns[THINGS.index("cat"), 18:].sum() == columns[THINGS.index("car"), :14].sum() == 0
    assert taught.region[0].sum((1, 2)).nonzero().flatten().tolist() == [THINGS.index("cat"), THINGS.index("car")]


def test_a_character_counts_as_animal_and_as_itself_except_in_a_sketch() -> None:
    assert named(exam(hung(PIM)).presence[0]) == {"cat", "pim"}
    assert named(exam(hung(PIM)).counts[0]) == set(SEEN)
    assert named(exam(hung(PIM, style="sketch")).counts[0]) == set(THINGS)


def test_one_scene_in_six_shows_a_dressed_animal() -> None:
    for i in range(0, 60, 6):
        figure = gallery.scene("cast", i).figures[0]
        assert figure.pattern or figure.wears


def test_clutter_and_pictures_of_nothing_show_nothing() -> None:
    clutter = gallery.clutter("clutter", 20)
    both = gallery.together(clutter, gallery.nothing(clutter.pictures))
    assert (both.things == NOTHING).all()
    assert not exam(both).presence.any()
    assert not exam(both).region.any()
    assert len({picture.numpy().tobytes() for picture in clutter.pictures}) >= 15


def test_the_same_step_gives_the_same_lesson_and_another_step_another(scenes: Gallery) -> None:
    empties = gallery.empties()
    one, again, other = (lesson(scenes, empties, generator(0, step)) for step in (1, 1, 2))
    assert torch.equal(one.pictures, again.pictures)
    assert torch.equal(one.presence, again.presence)
    assert not torch.equal(one.pictures, other.pictures)


def test_some_lessons_take_objects_away_and_none_adds_any(scenes: Gallery) -> None:
    empties = gallery.empties()
    whole = exam(scenes).presence
    taught = torch.stack([lesson(scenes, empties, generator(0, step)).presence for step in range(8)])
    assert (taught <= whole).all()
    assert 0.75 < (taught.sum() / (8 * whole.sum())).item() < 0.92


def test_what_is_not_labelled_present_has_no_region(scenes: Gallery) -> None:
    taught = lesson(scenes, gallery.empties(), generator(0, 3))
    assert not taught.region.amax((2, 3))[taught.presence[:, : len(THINGS)] == 0].any()


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_wiping_takes_the_share_of_the_figure_and_puts_the_ground_there(share: float) -> None:
    scenes = hung(CAT, CAR)
    mask = scenes.masks[:, 0]
    ground = torch.full((1, 3, 64, 64), 0.25)
    source = torch.Generator().manual_seed(0)
    wiped, left = distortion.wiped(floats(scenes), mask, ground, torch.tensor([share]), source)
    gone = mask & ~left
    assert gone.sum() / mask.sum() == pytest.approx(share, abs=0.05)
    assert (wiped == 0.25).all(1)[gone].all()
    assert torch.equal(wiped[:, :, ~gone[0]], floats(scenes)[:, :, ~gone[0]])


def test_shuffling_keeps_every_pixel_but_not_the_picture(scenes: Gallery) -> None:
    shuffled = distortion.shuffled(floats(scenes), torch.Generator().manual_seed(0))
    assert torch.equal(shuffled.flatten(2).sort().values, floats(scenes).flatten(2).sort().values)
    assert (shuffled != floats(scenes)).any()


def test_a_hue_turned_by_nothing_and_gray_turned_by_anything_stay() -> None:
    turn, saturation = torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.5])
    still, turned = distortion._hue_matrices(turn, saturation)
    assert torch.allclose(still, torch.eye(3), atol=1e-6)
    assert torch.allclose(turned @ torch.ones(3), torch.ones(3), atol=1e-6)
    assert not torch.allclose(turned, torch.eye(3), atol=0.1)


def test_pictures_and_masks_are_warped_alike(scenes: Gallery) -> None:
    both = scenes.masks.float()
    twice = torch.cat([both, both[:, :1]], 1)
    pictures, masks = distortion.warped(twice, both, torch.Generator().manual_seed(0))
    assert torch.equal(pictures[:, :2], masks)
    assert not torch.equal(masks, both)


@pytest.mark.parametrize(
    "distort", [distortion.recoloured, distortion.blurred, distortion.noisy, distortion.patched, distortion.shuffled]
)
def test_distorted_pictures_stay_in_range(scenes: Gallery, distort: distortion.Distortion) -> None:
    changed = distort(floats(scenes), torch.Generator().manual_seed(0))
    assert changed.shape == scenes.pictures.shape
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert not torch.equal(changed, floats(scenes))


def test_evidence_in_one_place_is_enough() -> None:
    evidence = torch.full((1, 1, 8, 8), -9.0)
    assert smooth_maximum(evidence).item() < -4
    evidence[0, 0, 3, 5] = 6.0
    assert smooth_maximum(evidence).item() == pytest.approx(6.0, abs=0.01)


def test_presence_that_cannot_be_told_costs_nothing() -> None:
    detector = Detector().eval()
    taught = exam(hung(PIM, style="sketch"))
    wrong = exam(hung(PIM, style="sketch"))
    wrong.presence[:, SEEN.index("pim")] = 0
    sight = detector(taught.pictures)
    assert torch.equal(loss(sight, taught), loss(sight, wrong))


def test_the_operating_point_lies_between_what_is_told_apart() -> None:
    assert operating_point(torch.full((50,), 4.0), torch.full((50,), -2.0)) == 1.0


def test_the_operating_point_yields_to_false_positives_where_classes_overlap() -> None:
    present, absent = torch.zeros(100), torch.linspace(-1, 3, 1001)
    assert operating_point(present, absent) == pytest.approx(2.98, abs=1e-3)
