"""The shipped detector finds what is drawn, where it is drawn, and nothing in pictures of nothing."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from efface_picturebook import gallery, held_out, world
from efface_picturebook.detector import SEEN, STYLES
from efface_picturebook.judge import BadDetector, Judge
from efface_picturebook.render import regions, render
from efface_picturebook.scene import Figure, Scene
from efface_picturebook.suite import DETECTOR, PicturebookSuite

MEBIBYTE = 2**20


@pytest.fixture(scope="module")
def suite() -> PicturebookSuite:
    return PicturebookSuite()


@pytest.fixture(scope="module")
def answers(suite: PicturebookSuite) -> held_out.Answers:
    return held_out.answers(suite.judge, 240)


def pair(left: str = "cat", right: str = "car", style: str = world.PLAIN) -> Scene:
    return Scene((Figure(left, "red", (17, 32), 14), Figure(right, "blue", (47, 32), 14)), "white", style)


def drawn(count: int = 6) -> list[Image.Image]:
    return [render(gallery.scene("drawn", i)) for i in range(count)]


def test_it_finds_what_is_there_and_little_else(answers: held_out.Answers) -> None:
    assert answers.recall().mean() > 0.97
    assert answers.false_positives().mean() < 0.003


def test_it_finds_nothing_in_pictures_of_nothing(suite: PicturebookSuite, answers: held_out.Answers) -> None:
    assert answers.invented.mean() < 0.15
    noise = torch.randint(256, (20, 64, 64, 3), generator=torch.Generator().manual_seed(0)).byte().numpy()
    images = [*map(Image.fromarray, noise), Image.new("RGB", (64, 64), "white"), Image.new("RGB", (64, 64))]
    assert suite.judge.verdicts(images).presences.max() < 0.5


def test_it_tells_styles(answers: held_out.Answers) -> None:
    assert answers.style.mean() > 0.97


@pytest.mark.parametrize("style", STYLES)
def test_it_sees_both_objects_of_a_scene_in_every_style(suite: PicturebookSuite, style: str) -> None:
    (found,) = suite.judge.verdicts([render(pair(style=style))]).presences
    assert {name for name, score in zip(SEEN, found, strict=True) if score >= 0.5} == {"cat", "car"}


def test_a_region_lies_on_its_object(suite: PicturebookSuite, answers: held_out.Answers) -> None:
    assert (answers.iou() or 0) > 0.85
    true = regions(pair())
    for name, mask in zip(("cat", "car"), true, strict=True):
        region = suite.region([render(pair())], name)
        assert region is not None
        assert (region[0] & mask).sum() / (region[0] | mask).sum() > 0.6


def test_an_absent_object_has_no_region_and_a_style_is_everywhere(suite: PicturebookSuite) -> None:
    tree = suite.region([render(pair())], "tree")
    assert tree is not None
    assert not tree.any()
    assert suite.region([render(pair())], "neon") is None


def test_a_character_is_its_animal_with_everything_it_wears(suite: PicturebookSuite) -> None:
    pim = Figure("cat", "orange", (32, 33), 22, pattern="striped", wears=("hat", "red"))
    plain = Figure("cat", "orange", (32, 33), 22)
    images = [render(Scene((one,), "white", world.PLAIN)) for one in (pim, plain)]
    assert [score >= 0.5 for score in suite.found(images, "pim")] == [True, False]
    assert (suite.found(images, "cat") >= 0.5).all()
    assert (suite.region(images, "pim") == suite.region(images, "cat")).all()  # type: ignore[union-attr]


def test_a_styles_score_is_its_share_of_all_styles_and_plain(suite: PicturebookSuite) -> None:
    images = [render(pair(style=style)) for style in STYLES]
    shares = np.stack([suite.found(images, style) for style in world.STYLES])
    assert (shares.sum(0) <= 1 + 1e-6).all()
    assert (np.diag(shares[:, 1:]) > 0.5).all()


def test_the_same_pictures_get_the_same_verdicts_in_any_company(suite: PicturebookSuite) -> None:
    images = drawn(60)
    together, again = suite.judge.verdicts(images), Judge.load(DETECTOR).verdicts(images)
    alone = suite.judge.verdicts(images[55:56])
    assert (together.presences == again.presences).all()
    np.testing.assert_allclose(alone.presences[0], together.presences[55], atol=1e-5)


def test_answers_have_the_shapes_of_the_contract(suite: PicturebookSuite) -> None:
    images = drawn(3)
    assert suite.found(images, "cat").shape == (3,)
    presences = suite.judge.verdicts(images).presences
    assert ((presences >= 0) & (presences <= 1)).all()
    assert suite.features(images).shape == (3, 96)
    region = suite.region(images, "cat")
    assert region is not None
    assert (region.shape, region.dtype) == ((3, 64, 64), np.bool_)
    assert suite.found([], "cat").shape == (0,)


def test_features_of_different_objects_differ_more_than_those_of_the_same(suite: PicturebookSuite) -> None:
    def features(thing: str) -> np.ndarray:
        figures = [Figure(thing, colour, (32, 32), 23) for colour in world.COLOURS]
        return suite.features([render(Scene((one,), "white", world.PLAIN)) for one in figures])

    cats, cars = features("cat"), features("car")
    within = (
        np.linalg.norm(cats - cats.mean(0), axis=1).mean() + np.linalg.norm(cars - cars.mean(0), axis=1).mean()
    ) / 2
    assert np.linalg.norm(cats.mean(0) - cars.mean(0)) > 1.5 * within


def test_a_picture_of_another_size_is_refused(suite: PicturebookSuite) -> None:
    with pytest.raises(ValueError, match="64 x 64 pixels, not of 32 x 64"):
        suite.found([Image.new("RGB", (32, 64))], "cat")


def test_a_damaged_missing_or_foreign_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    damaged, foreign = tmp_path / "damaged.safetensors", tmp_path / "foreign.safetensors"
    damaged.write_bytes(DETECTOR.read_bytes()[:5000])
    save_file({"weight": torch.zeros(2)}, foreign)
    for path in (damaged, foreign, tmp_path / "missing.safetensors"):
        with pytest.raises(BadDetector, match=path.name):
            PicturebookSuite(path).found(drawn(1), "cat")


def test_the_file_is_small_and_in_half_precision_and_the_digest_is_its_own(suite: PicturebookSuite) -> None:
    assert DETECTOR.stat().st_size < 2 * MEBIBYTE
    assert {tensor.dtype for tensor in load_file(DETECTOR).values()} == {torch.float16}
    assert suite.digest == hashlib.sha256(DETECTOR.read_bytes()).hexdigest()


def test_everything_shipped_stays_under_25_mebibytes() -> None:
    files = [path for path in DETECTOR.parent.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert sum(path.stat().st_size for path in files) < 25 * MEBIBYTE
