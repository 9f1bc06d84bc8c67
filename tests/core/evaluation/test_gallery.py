"""Pictures come back as they were, by all that they depend on; damage costs nothing but the time to make them again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from efface.errors import CannotSave
from efface.evaluation.gallery import Gallery, usual_folder

FACTS = {"prompt": "a cat", "seeds": [1, 2]}


class Camera:
    """Makes two pictures of noise and counts how often."""

    def __init__(self) -> None:
        self.shots = 0

    def __call__(self) -> list[Image.Image]:
        self.shots += 1
        noise = np.random.default_rng(self.shots).integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)
        return [Image.fromarray(one) for one in noise]


@pytest.fixture(params=["memory", "folder"])
def gallery(request: Any, tmp_path: Path) -> Gallery:
    return Gallery(tmp_path / "deep" / "in" if request.param == "folder" else None)


def bytes_of(images: list[Image.Image]) -> list[bytes]:
    return [image.tobytes() for image in images]


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_pictures_are_made_once_and_come_back_bit_for_bit(gallery: Gallery) -> None:
    camera = Camera()
    made, found = gallery.pictures(FACTS, camera), gallery.pictures(dict(reversed(FACTS.items())), camera)
    assert camera.shots == 1
    assert bytes_of(found) == bytes_of(made) == bytes_of(Camera()())
    assert {(image.size, image.mode) for image in found} == {((7, 5), "RGB")}


def test_another_fact_is_another_picture(gallery: Gallery) -> None:
    camera = Camera()
    for facts in (FACTS, FACTS | {"seeds": [2, 1]}, FACTS | {"scale": 1.0}, FACTS | {"scale": 0.5}):
        gallery.pictures(facts, camera)
    assert camera.shots == 4


def test_a_folder_outlives_its_gallery_and_memory_does_not(tmp_path: Path) -> None:
    camera = Camera()
    for folder in (tmp_path, tmp_path, None, None):
        Gallery(folder).pictures(FACTS, camera)
    assert camera.shots == 3


def test_nothing_is_kept_of_a_batch_that_was_interrupted(tmp_path: Path) -> None:
    def interrupted() -> list[Image.Image]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Gallery(tmp_path).pictures(FACTS, interrupted)
    assert files(tmp_path) == []


def damages(data: bytes) -> dict[str, bytes]:
    flipped = {
        f"byte {place}": data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]
        for place in range(0, len(data), 7)
    }
    cut = {f"{part} of it": data[: int(len(data) * part)] for part in (0, 0.1, 0.5, 0.99)}
    return flipped | cut | {"text": b"no pictures", "twice": data + data}


def test_a_damaged_file_is_made_anew(tmp_path: Path) -> None:
    before = bytes_of(Gallery(tmp_path).pictures(FACTS, Camera()))
    (file,) = files(tmp_path)
    whole = file.read_bytes()
    for what, data in damages(whole).items():
        file.write_bytes(data)
        camera = Camera()
        assert bytes_of(Gallery(tmp_path).pictures(FACTS, camera)) == before, what
        assert camera.shots == 0 or file.read_bytes() == whole, what
    assert camera.shots == 1 or data == whole + whole


@pytest.mark.parametrize("pictures", [np.zeros((2, 5, 7, 3)), np.zeros((2, 5), dtype=np.uint8)])
def test_a_file_with_something_else_in_it_is_made_anew(tmp_path: Path, pictures: np.ndarray) -> None:
    camera = Camera()
    Gallery(tmp_path).pictures(FACTS, camera)
    (file,) = files(tmp_path)
    np.savez(file, pictures=pictures, facts=np.array(json.dumps(FACTS, separators=(",", ":"))))
    Gallery(tmp_path).pictures(FACTS, camera)
    assert camera.shots == 2


def test_a_file_of_other_pictures_is_not_taken_for_these(tmp_path: Path) -> None:
    camera, gallery = Camera(), Gallery(tmp_path)
    gallery.pictures(FACTS, camera)
    (file,) = files(tmp_path)
    gallery.pictures({"prompt": "a dog"}, camera)
    (other,) = {*files(tmp_path)} - {file}
    file.write_bytes(other.read_bytes())
    gallery.pictures(FACTS, camera)
    assert camera.shots == 3


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "pictures").write_text("")
    with pytest.raises(CannotSave, match=str(tmp_path)):
        Gallery(tmp_path).pictures(FACTS, Camera())


@pytest.mark.parametrize(
    ("environment", "platform", "wanted"),
    [
        ({"EFFACE_CACHE": "~/mine", "XDG_CACHE_HOME": "/x"}, "linux", "~/mine"),
        ({"EFFACE_CACHE": "", "XDG_CACHE_HOME": "/x"}, "linux", "/x/efface"),
        ({}, "linux", "~/.cache/efface"),
        ({}, "darwin", "~/Library/Caches/efface"),
        ({"LOCALAPPDATA": "/local"}, "win32", "/local/efface/cache"),
    ],
)
def test_the_usual_folder_is_the_one_for_caches(environment: dict[str, str], platform: str, wanted: str) -> None:
    assert usual_folder(environment, platform) == Path(wanted).expanduser()


def test_the_usual_folder_is_asked_of_this_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EFFACE_CACHE", str(tmp_path))
    assert usual_folder() == tmp_path


def test_what_was_left_half_written_goes_and_nothing_else(tmp_path: Path) -> None:
    gallery = Gallery(tmp_path)
    gallery.tidy()
    gallery.pictures(FACTS, Camera())
    (kept,) = files(tmp_path)
    for folder in (kept.parent, tmp_path / "pictures" / "00"):
        folder.mkdir(exist_ok=True)
        (folder / ".efface-0123456789abcdef.partial").touch()
    gallery.tidy()
    assert files(tmp_path) == [kept]
    Gallery().tidy()
