"""CLIP answers what can be worked out by hand, loads from a folder only, and says what it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from efface_judges.clip import Clip
from efface_judges.clip_score import clip_scores
from efface_judges.contents import file_digest
from efface_judges.errors import BadJudge
from efface_judges.testing import PATCH, picture

AXES = PATCH * PATCH
APART = -1 / (AXES - 1)
"""The cosine of two of n axes after each lost its mean."""


def test_a_text_and_the_picture_of_its_word_have_one_direction(clip: Clip) -> None:
    texts = clip.texts(["a photo of the airplane", "cat", "a photo of the dog"])
    pictures = clip.pictures([picture(0), picture(3), picture(5)])
    assert np.allclose(texts @ pictures.T, np.where(np.eye(3), 1, APART), atol=1e-4)


def test_clip_score_is_a_hundred_for_what_was_asked_and_0_for_what_was_not(clip: Clip) -> None:
    scores = clip_scores(clip, [picture(3), picture(3), picture(3, 5)], ["the cat", "the dog", "the cat"])
    assert scores[:2] == pytest.approx([100, 0], abs=0.01)
    assert 50 < scores[2] < 99


def test_a_picture_is_looked_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip, looked = Clip.load(folder), []
    within = clip._picture_batch
    monkeypatch.setattr(clip, "_picture_batch", lambda images: looked.append(len(images)) or within(images))
    first = clip.pictures([picture(1), picture(2), picture(1)])
    assert np.array_equal(clip.pictures([picture(2), picture(1)]), first[[1, 0]])
    assert looked == [2]


def test_a_text_is_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip, read = Clip.load(folder), []
    within = clip._text_batch
    monkeypatch.setattr(clip, "_text_batch", lambda texts: read.append(len(texts)) or within(texts))
    first = clip.texts(["cat", "dog", "cat"])
    assert np.array_equal(clip.texts(["dog", "cat"]), first[[1, 0]])
    assert read == [2]


def test_nothing_has_directions_of_nothing(clip: Clip) -> None:
    assert clip.pictures([]).shape == clip.texts([]).shape == (0, AXES)


def test_a_long_text_is_cut(clip: Clip) -> None:
    assert clip.texts(["cat " * 200]) == pytest.approx(clip.texts(["cat"]), abs=1e-4)


def test_it_says_what_it_is(clip: Clip, folder: Path, tmp_path: Path) -> None:
    assert clip.facts["clip"] == "reading-clip"
    assert clip.facts["torch"] == torch.__version__
    assert len(str(clip.facts["clip_sha256"])) == 64
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert Clip.load(copy).digest == clip.digest
    (copy / "README.md").write_text("a copy")
    assert Clip.load(copy).digest == clip.digest
    tensors = load_file(copy / "model.safetensors")
    save_file(tensors | {"logit_scale": tensors["logit_scale"] + 1}, copy / "model.safetensors", {"format": "pt"})
    assert Clip.load(copy).digest != clip.digest


def _changed(folder: Path, target: Path, fault: str) -> Path:
    copy = shutil.copytree(folder, target / fault)
    config = json.loads((copy / "config.json").read_text())
    match fault:
        case "bert":
            (copy / "config.json").write_text(json.dumps(config | {"model_type": "bert"}))
        case "no-config":
            (copy / "config.json").unlink()
        case "no-words":
            (copy / "tokenizer.json").unlink()
            (copy / "tokenizer_config.json").unlink()
        case "no-processor":
            (copy / "preprocessor_config.json").unlink()
        case "no-weights":
            (copy / "model.safetensors").unlink()
        case "half":
            tensors = load_file(copy / "model.safetensors")
            del tensors["visual_projection.weight"]
            save_file(tensors, copy / "model.safetensors", {"format": "pt"})
        case "damaged":
            (copy / "model.safetensors").write_bytes(b"nothing")
    return copy


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("bert", "is a model of type 'bert', not 'clip': name a local folder"),
        ("no-config", "has no config.json that can be read"),
        ("no-processor", "Cannot use the CLIP model"),
        ("no-weights", "Cannot use the CLIP model"),
        ("half", "visual_projection.weight is not in its weights"),
        ("damaged", "Cannot use the CLIP model"),
    ],
)
def test_another_folder_is_refused(folder: Path, tmp_path: Path, fault: str, error: str) -> None:
    with pytest.raises(BadJudge, match=error):
        Clip.load(_changed(folder, tmp_path, fault))


def test_another_device_has_to_be_there(folder: Path) -> None:
    with pytest.raises(BadJudge, match="CLIP cannot compute on 'nowhere': "):
        Clip.load(folder, "nowhere")


def test_a_name_on_a_hub_is_a_folder_that_is_not_there() -> None:
    with pytest.raises(BadJudge, match="There is no folder openai/clip-vit-base-patch32: name a local folder"):
        Clip.load("openai/clip-vit-base-patch32")


def test_a_files_digest_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert file_digest(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
