"""The shipped pipeline is standard, small, offline, and draws."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline

import efface_picturebook
from efface_picturebook import world

MEBIBYTE = 2**20


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    folder = efface_picturebook.weights()
    loaded = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def draw(pipeline: StableDiffusionPipeline, prompts: list[str]) -> np.ndarray:
    answer = pipeline(
        prompts, num_inference_steps=4, height=64, width=64, output_type="np",
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    return np.asarray(answer.images)


def test_the_plugin_offers_the_weights_under_its_name() -> None:
    (model,) = efface_picturebook.efface_models()
    assert (model.name, model.neutral) == ("picturebook", "a picture")
    assert model.path() == efface_picturebook.weights()


def test_the_folder_is_small_and_holds_no_pickles() -> None:
    files = [path for path in efface_picturebook.weights().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 25 * MEBIBYTE
    assert {path.suffix for path in files} <= {".json", ".safetensors"}


def test_no_file_tells_where_it_was_made() -> None:
    for path in efface_picturebook.weights().rglob("*.json"):
        text = path.read_text()
        assert '"/' not in text or path.name == "tokenizer.json", path


def test_it_is_a_plain_stable_diffusion_pipeline(pipeline: StableDiffusionPipeline) -> None:
    assert type(pipeline) is StableDiffusionPipeline
    assert pipeline.safety_checker is None
    assert pipeline.tokenizer.model_max_length == 32


def test_it_draws_finite_pictures_that_follow_the_prompt(pipeline: StableDiffusionPipeline) -> None:
    cat, again, car = (draw(pipeline, [prompt])[0] for prompt in ("a cat", "a cat", "a car"))
    assert cat.shape == (64, 64, 3)
    assert np.isfinite(cat).all()
    assert (cat == again).all()
    assert np.abs(cat - car).mean() > 0.02


def test_its_tokenizer_knows_every_word(pipeline: StableDiffusionPipeline) -> None:
    assert all(len(pipeline.tokenizer.tokenize(word)) == 1 for word in world.words())


def test_it_sits_inside_the_package() -> None:
    assert efface_picturebook.weights() == Path(efface_picturebook.__file__).parent / "weights"
