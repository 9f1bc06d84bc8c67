"""A name, a folder or a hub id becomes a pipeline, or one line says why not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline

import efface
from efface import EffaceError, Registry, UnknownModel, UnsupportedPipeline, load
from efface.memory import Need, weights_bytes
from efface.source import Source, located
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


@pytest.fixture
def with_meta(monkeypatch: Any) -> None:
    """torch's device without memory counts as an accelerator."""
    monkeypatch.setattr("efface.devices.devices", lambda: ["cpu", "meta"])
    monkeypatch.setattr("efface.memory.free_bytes", lambda device: None)


@pytest.mark.usefixtures("with_meta")
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


@pytest.mark.parametrize("name", ["./models/none", "/models/none", "~/models", "a/b/c", "models/", "../none", "a/.."])
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


DIFFUSERS = {name: ["diffusers", cls] for name, cls in (("unet", "UNet2DConditionModel"), ("vae", "AutoencoderKL"))}
CLIP = {"text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"]}
SD1 = {"_class_name": "StableDiffusionPipeline", **DIFFUSERS, **CLIP, "scheduler": ["diffusers", "DDIMScheduler"]}


def saying(folder: Path, index: Any) -> Path:
    """A folder with this model_index.json; the weights of every part are junk."""
    folder.mkdir(exist_ok=True)
    (folder / "model_index.json").write_text(index if isinstance(index, str) else json.dumps(index))
    for name in index if isinstance(index, dict) else ():
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "config.json").write_text("junk")
        (folder / name / "model.safetensors").write_text("junk")
    return folder


@pytest.mark.parametrize(
    ("index", "told"),
    [
        ("", r"model_index\.json is not JSON"),
        ("{", r"model_index\.json is not JSON"),
        ("[" * 100_000, r"model_index\.json is not JSON"),
        ("[]", "names no pipeline"),
        ("{}", "names no pipeline"),
        ('{"_class_name": 3}', "names no pipeline"),
        (
            {**SD1, "_class_name": "NoSuchPipeline"},
            "its pipeline is a NoSuchPipeline, which diffusers .* does not have",
        ),
        ({**SD1, "unet": ["diffusers", "UNet3"]}, "its unet is a UNet3, which diffusers .* does not have"),
        (
            {**SD1, "tokenizer": ["transformers", "Clip"]},
            "its tokenizer is a Clip, which transformers .* does not have",
        ),
    ],
)
def test_a_damaged_index_is_refused_in_one_line(index: Any, told: str, tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match=told) as caught:
        load(saying(tmp_path, index), registry=Registry())
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["unet", "text_encoder", "tokenizer", "scheduler", "vae"])
def test_a_part_that_efface_needs_may_not_be_left_out(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedPipeline, match=f"is saved without its {name} .*; efface needs unet, text_encoder, "):
        load(saying(tmp_path, SD1 | {name: [None, None]}), registry=Registry())


@pytest.mark.parametrize("name", ["tokenizer", "scheduler", "vae", "unet", "safety_checker"])
def test_a_part_that_is_named_and_not_there_is_refused(name: str, folder: Path, tmp_path: Path) -> None:
    copy = copied(folder, tmp_path)
    index = json.loads((copy / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    saying(copy / "checker", {"safety_checker": ()})
    (copy / "checker" / "safety_checker").rename(copy / "safety_checker")
    (copy / "model_index.json").write_text(json.dumps(index))
    shutil.rmtree(copy / name)
    with pytest.raises(UnknownModel, match=rf"{copy} has no {name}/, which its model_index\.json names$"):
        load(copy, registry=Registry())
    (copy / name).mkdir()
    with pytest.raises(UnknownModel, match=rf"{copy} has no {name}/, which"):
        load(copy, registry=Registry())


def test_a_network_without_its_form_or_its_weights_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = copied(folder, tmp_path)
    (copy / "text_encoder" / "model.safetensors").unlink()
    with pytest.raises(UnknownModel, match="has no weights in text_encoder/"):
        load(copy, registry=Registry())
    (copy / "vae" / "config.json").unlink()
    with pytest.raises(UnknownModel, match=r"has no vae/config\.json"):
        load(copy, registry=Registry())


def copied(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to / "copy"))


def test_a_damaged_weights_file_is_refused_in_one_line(folder: Path, tmp_path: Path) -> None:
    broken = copied(folder, tmp_path)
    file = broken / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UnknownModel, match="Cannot load") as caught:
        load(broken, registry=Registry())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("pipeline", "parts", "told"),
    [
        ("FluxPipeline", ["text_encoder", "transformer", "vae"], "FluxPipeline has .*transformer, vae, no unet"),
        (
            "StableDiffusion3Pipeline",
            ["text_encoder", "text_encoder_2", "transformer"],
            "StableDiffusion3Pipeline has .*transformer, no unet: efface edits pipelines with a U-Net",
        ),
        ("DDPMPipeline", ["unet", "scheduler"], "DDPMPipeline has unet, scheduler, no text_encoder: efface edits"),
    ],
)
def test_a_pipeline_of_another_kind_is_refused_before_its_weights_are_looked_for(
    pipeline: str, parts: list[str], told: str, tmp_path: Path, monkeypatch: Any
) -> None:
    index = {"_class_name": pipeline, "text_encoder_3": [None, None]} | {name: ["a", "b"] for name in parts}
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "model_index.json").write_text(json.dumps(index))
    downloaded(folder, tmp_path / "hub", monkeypatch)
    for model in (folder, "owner/name"):
        with pytest.raises(UnsupportedPipeline, match=told):
            load(model, registry=Registry())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_with_one_variant_of_its_weights_is_loaded(
    family: Any, tmp_path: Path, weights: Any, caplog: Any
) -> None:
    half = tiny_pipeline(family, dtype=torch.float16)
    half.save_pretrained(tmp_path, variant="fp16")
    with caplog.at_level("INFO"):
        loaded = load(tmp_path, dtype=torch.float16, registry=Registry())
    assert weights(loaded) == weights(half)
    assert "reading the fp16 variant of its weights" in caplog.text


def test_a_variant_is_read_for_the_parts_without_plain_weights(folder: Path, tmp_path: Path, weights: Any) -> None:
    copy = copied(folder, tmp_path)
    plain = copy / "unet" / "diffusion_pytorch_model.safetensors"
    plain.rename(plain.with_name("diffusion_pytorch_model.fp16.safetensors"))
    assert weights(load(copy, registry=Registry())) == weights(load(folder, registry=Registry()))


def test_plain_weights_are_read_where_they_are(folder: Path, tmp_path: Path, weights: Any) -> None:
    copy = copied(folder, tmp_path)
    (copy / "unet" / "diffusion_pytorch_model.fp16.safetensors").write_text("junk")
    assert weights(load(copy, registry=Registry())) == weights(load(folder, registry=Registry()))


def test_several_variants_and_no_plain_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    copy = copied(folder, tmp_path)
    unet = copy / "unet" / "diffusion_pytorch_model.safetensors"
    unet.rename(unet.with_name("diffusion_pytorch_model.fp16.safetensors"))
    (copy / "unet" / "diffusion_pytorch_model.non_ema-00001-of-00002.safetensors").write_text("junk")
    with pytest.raises(UnknownModel, match=r"several variants of its weights, and no plain ones \(unet: fp16, non_ema"):
        load(copy, registry=Registry())
    (copy / "unet" / "diffusion_pytorch_model.non_ema-00001-of-00002.safetensors").unlink()
    vae = copy / "vae" / "diffusion_pytorch_model.safetensors"
    vae.rename(vae.with_name("diffusion_pytorch_model-00001-of-00001.bf16.safetensors"))
    with pytest.raises(UnknownModel, match=r"no variant of its weights that all parts have.*unet: fp16; vae: bf16"):
        load(copy, registry=Registry())


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"dtype": "float16"}, r"dtype must be one of torch\.float32, torch\.float16, .*, not 'float16'"),
        ({"dtype": torch.int8}, r"dtype must be one of .*, not torch\.int8"),
        ({"device": "cudaa"}, "No device 'cudaa'; this machine has: cpu"),
        ({"device": "cuda"}, "No device 'cuda'; this machine has: cpu"),
        ({"device": torch.device("cuda", 1)}, "No device 'cuda:1'; this machine has: cpu"),
        ({"offload": "modell"}, "No offload 'modell'; there are: model, sequential. Did you mean 'model'"),
        ({"offload": "model"}, "on cpu there is nowhere to go"),
        ({"offload": "sequential", "device": "cpu"}, "on cpu there is nowhere to go"),
    ],
)
def test_wrong_arguments_are_refused_before_weights_are_read(
    given: Any, told: str, folder: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr("efface.devices.devices", lambda: ["cpu"])
    monkeypatch.setattr(DiffusionPipeline, "from_pretrained", None)
    with pytest.raises(EffaceError, match=told):
        load(folder, registry=Registry(), **given)


def test_weights_that_need_more_than_is_free_are_warned_of_beforehand(folder: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("efface.memory.free_bytes", lambda device: 1000)
    monkeypatch.setattr(DiffusionPipeline, "from_pretrained", None)
    told = pytest.warns(UserWarning, match=r"tiny needs .* on cpu and 1\.0 kB are free; bfloat16 takes half")
    with told, pytest.raises(UnknownModel):
        load(folder, registry=Registry())


def test_a_hub_id_that_cannot_be_had_is_one_line(monkeypatch: Any) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UnknownModel) as caught:
        load("nobody-at-all/no-such-model", registry=Registry())
    assert str(caught.value).startswith("Cannot load 'nobody-at-all/no-such-model': ")
    assert "\n" not in str(caught.value)


def downloaded(folder: Path, cache: Path, monkeypatch: Any) -> Path:
    """The folder that a download of owner/name has left, with the files of this one; the hub is not reached."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    repository, commit = cache / "models--owner--name", "0" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    return Path(shutil.copytree(folder, repository / "snapshots" / commit))


@pytest.fixture
def hub(folder: Path, monkeypatch: Any, tmp_path: Path) -> Path:
    return downloaded(folder, tmp_path / "hub", monkeypatch)


@pytest.mark.usefixtures("hub")
def test_a_hub_id_is_asked_for_as_it_is(monkeypatch: Any, pipe: Any) -> None:
    asked: list[Any] = []

    def from_pretrained(source: Any, **options: Any) -> Any:
        asked.append((source, options["local_files_only"], options.get("variant")))
        return pipe

    monkeypatch.setattr(DiffusionPipeline, "from_pretrained", from_pretrained)
    assert load("owner/name", registry=Registry()) is pipe
    assert asked == [("owner/name", False, None)]


def test_what_a_hub_id_needs_is_known_where_it_has_been_downloaded(hub: Path) -> None:
    source = Source("owner/name", "owner/name")
    found = Need.of(source, torch.float32, "cpu")
    assert found is not None
    assert found.weights == weights_bytes(hub, torch.float32)
    (hub / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    assert Need.of(source, torch.float32, "cpu") is None
    assert Need.of(Source("owner/none", "owner/none"), torch.float32, "cpu") is None


def test_the_variant_of_a_hub_id_is_that_of_its_files(hub: Path) -> None:
    assert located("owner/name", None, Registry()).variant is None
    plain = hub / "unet" / "diffusion_pytorch_model.safetensors"
    plain.rename(plain.with_name("diffusion_pytorch_model.fp16.safetensors"))
    assert located("owner/name", None, Registry()).variant == "fp16"


@pytest.mark.usefixtures("with_meta")
def test_offloading_goes_to_the_device(folder: Path, monkeypatch: Any) -> None:
    from diffusers import StableDiffusionPipeline

    asked: list[Any] = []
    for name in ("enable_model_cpu_offload", "enable_sequential_cpu_offload"):
        monkeypatch.setattr(StableDiffusionPipeline, name, lambda self, device, name=name: asked.append((name, device)))
    load(folder, device="meta", offload="model", registry=Registry())
    load(folder, offload="sequential", registry=Registry())
    assert asked == [("enable_model_cpu_offload", "meta"), ("enable_sequential_cpu_offload", "meta")]
