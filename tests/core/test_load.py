"""A name, a folder or a hub id becomes a pipeline, or one line says why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import efface
from efface import Registry, UnknownModel, UnsupportedPipeline, load
from efface.testing.pipelines import FAMILIES, tiny_pipeline


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny"
    tiny_pipeline("sd1").save_pretrained(path)
    return path


def offering(path: Path) -> Registry:
    class Plugin:
        @efface.hookimpl
        def efface_models(self) -> list[efface.NamedModel]:
            return [efface.NamedModel("tiny", "a tiny model", lambda: path, "a picture")]

    return Registry([Plugin()])


def test_a_folder_is_loaded(folder: Path, weights: Any, pipe: Any) -> None:
    for given in (folder, str(folder)):
        loaded = load(given, registry=Registry())
        assert weights(loaded) == weights(pipe)
        assert type(loaded).__name__ == "StableDiffusionPipeline"


@pytest.mark.parametrize("family", FAMILIES[1:])
def test_every_family_is_loaded(family: Any, tmp_path: Path, shared: Any, weights: Any) -> None:
    shared(family).save_pretrained(tmp_path)
    assert weights(load(tmp_path, registry=Registry())) == weights(shared(family))


def test_a_plugins_model_is_loaded_by_name(folder: Path, weights: Any, pipe: Any) -> None:
    assert weights(load("tiny", registry=offering(folder))) == weights(pipe)


def test_float32_on_the_cpu_unless_asked_for(folder: Path) -> None:
    loaded = load(folder, registry=Registry())
    assert {weight.dtype for weight in loaded.unet.parameters()} == {torch.float32}
    assert loaded.device == torch.device("cpu")
    half = load(folder, dtype=torch.bfloat16, device="meta", registry=Registry())
    assert {weight.dtype for weight in half.unet.parameters()} == {torch.bfloat16}
    assert half.device == torch.device("meta")


def test_loading_without_a_safety_checker_warns_of_nothing(folder: Path, caplog: Any) -> None:
    load(folder, registry=Registry())
    assert "safety" not in caplog.text


def test_an_unknown_name_is_refused_with_the_models_there_are(folder: Path) -> None:
    with pytest.raises(
        UnknownModel, match=r"No model 'tinny'; installed: tiny\. Did you mean 'tiny'\?.*folder or file, or a hub id"
    ):
        load("tinny", registry=offering(folder))
    with pytest.raises(UnknownModel, match=r"No model 'tinny'; installed: none\."):
        load("tinny", registry=Registry())


@pytest.mark.parametrize("name", ["./models/none", "/models/none", "~/models", "a/b/c", "models/", "../none"])
def test_a_path_that_is_no_folder_is_not_taken_for_a_hub_id(name: str, monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownModel, match=r"No model"):
        load(name, registry=Registry())


def test_a_folder_that_is_no_pipeline_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match=r"is a folder without model_index\.json: not a diffusers pipeline"):
        load(tmp_path, registry=Registry())
    with pytest.raises(UnknownModel, match=r"is a folder without model_index\.json"):
        load("tiny", registry=offering(tmp_path))
    with pytest.raises(UnknownModel, match="gone is no folder: not a diffusers pipeline"):
        load("tiny", registry=offering(tmp_path / "gone"))


@pytest.mark.parametrize(
    "index", ["", "{", "[]", '{"_class_name": "NoSuchPipeline"}', '{"_class_name": "StableDiffusionPipeline"}', "{}"]
)
def test_a_damaged_index_is_refused_in_one_line(index: str, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(index)
    with pytest.raises(UnknownModel) as caught:
        load(tmp_path, registry=Registry())
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_weights_file_is_refused_in_one_line(folder: Path, tmp_path: Path) -> None:
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    file = broken / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UnknownModel, match="Cannot load") as caught:
        load(broken, registry=Registry())
    assert "\n" not in str(caught.value)


def test_a_pipeline_without_a_unet_is_refused(tmp_path: Path) -> None:
    from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel

    transformer = DiTTransformer2DModel(
        num_attention_heads=1,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=1,
        sample_size=8,
        num_embeds_ada_norm=1000,
        norm_num_groups=4,
    )
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4)
    DiTPipeline(transformer, vae, DDIMScheduler()).save_pretrained(tmp_path)
    with pytest.raises(UnsupportedPipeline, match="DiTPipeline has no unet: efface edits pipelines with a U-Net"):
        load(tmp_path, registry=Registry())


def test_a_hub_id_that_cannot_be_had_is_one_line(monkeypatch: Any) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UnknownModel) as caught:
        load("nobody-at-all/no-such-model", registry=Registry())
    assert str(caught.value).startswith("Cannot load 'nobody-at-all/no-such-model': ")
    assert "\n" not in str(caught.value)


def test_a_hub_id_is_asked_for_as_it_is(monkeypatch: Any, pipe: Any) -> None:
    from diffusers import DiffusionPipeline

    asked: list[Any] = []

    def from_pretrained(source: Any, **options: Any) -> Any:
        asked.append((source, options["local_files_only"]))
        return pipe

    monkeypatch.setattr(DiffusionPipeline, "from_pretrained", from_pretrained)
    assert load("owner/name", registry=Registry()) is pipe
    assert asked == [("owner/name", False)]


def test_offloading_goes_to_the_device(folder: Path, monkeypatch: Any) -> None:
    from diffusers import StableDiffusionPipeline

    asked: list[Any] = []
    for name in ("enable_model_cpu_offload", "enable_sequential_cpu_offload"):
        monkeypatch.setattr(StableDiffusionPipeline, name, lambda self, device, name=name: asked.append((name, device)))
    load(folder, device="meta", offload="model", registry=Registry())
    load(folder, device="meta", offload="sequential", registry=Registry())
    assert asked == [("enable_model_cpu_offload", "meta"), ("enable_sequential_cpu_offload", "meta")]
