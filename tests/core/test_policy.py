"""A policy file pins a model and its erasures, and whatever is not as pinned is named."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import efface
from efface import CannotSave, Editor, Erasure, Policy, PolicyError, Registry, WrongBase
from efface.policy import bake, erasures_of, model_of, pin
from efface.policy.identity import digests
from efface.policy.toml import toml
from efface.registry import PluginInfo
from efface.testing.pipelines import tiny_pipeline

Erasures = Mapping[str, Erasure]


@pytest.fixture
def files(tmp_path: Path, erasures: Erasures) -> list[Path]:
    """Two erasures in a folder beside the policy's."""
    folder = tmp_path / "erasures"
    folder.mkdir()
    for name in ("nudge", "tilt dog"):
        erasures[name].save(folder / f"{name}.safetensors")
    return [folder / "tilt dog.safetensors", folder / "nudge.safetensors"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    place = tmp_path / "app" / "efface.toml"
    place.parent.mkdir()
    return place


@pytest.fixture
def policy(pipe: Any, files: list[Path], path: Path, registry: Registry) -> Policy:
    found = pin(pipe, "tiny", files, path, scales=[0.5, 1], registry=registry)
    found.save()
    return found


def mismatches(policy: Policy, registry: Registry) -> list[tuple[str, str]]:
    return [(one.about, one.name) for one in erasures_of(policy, registry)[1]]


def changed(policy: Policy, **fields: Any) -> Policy:
    """The policy with another first erasure."""
    first, *others = policy.erasures
    return dataclasses.replace(policy, erasures=(dataclasses.replace(first, **fields), *others))


# The file


def test_what_is_written_is_what_is_read(policy: Policy, path: Path) -> None:
    assert Policy.load(path) == policy


def test_a_policy_has_files_relative_to_it_in_order_with_digests_and_scales(policy: Policy, erasures: Erasures) -> None:
    assert [(one.file, one.sha256, one.method, one.scale) for one in policy.erasures] == [
        ("../erasures/tilt dog.safetensors", erasures["tilt dog"].digest, "tilt", 0.5),
        ("../erasures/nudge.safetensors", erasures["nudge"].digest, "nudge", 1.0),
    ]


def test_any_toml_reader_reads_it(policy: Policy, path: Path, pipe: Any) -> None:
    data = tomllib.loads(path.read_text())
    assert list(data) == ["format", "model", "erasures"]
    assert data["model"]["name"] == "tiny"
    assert data["model"]["sha256"] == digests(pipe)
    assert [one["file"] for one in data["erasures"]] == [one.file for one in policy.erasures]


def test_a_policy_without_erasures_can_be_read(pipe: Any, path: Path, registry: Registry) -> None:
    pin(pipe, "tiny", [], path, registry=registry).save()
    assert Policy.load(path).erasures == ()


def test_what_was_let_pass_is_written_down(
    erasures: Erasures, files: list[Path], path: Path, registry: Registry
) -> None:
    stranger = tiny_pipeline("sd1", seed=1)
    with pytest.raises(WrongBase, match="tilt-dog was fitted on another base"):
        pin(stranger, "tiny", files, path, registry=registry)
    pin(stranger, "tiny", files, path, allow_other_base=True, registry=registry).save()
    assert Policy.load(path).allow_other_base
    with efface.apply(stranger, path, registry=registry) as editor:
        assert len(editor.entries) == 2


def test_a_local_model_is_found_from_the_policys_folder(
    pipe: Any, tmp_path: Path, path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models" / "one").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    found = pin(pipe, "models/one", [], path, registry=registry)
    assert (found.model, found.local) == ("../models/one", True)
    found.save()
    monkeypatch.chdir(tmp_path / "models")
    source = Policy.load(path).source
    assert isinstance(source, Path)
    assert source.samefile(tmp_path / "models" / "one")


def test_only_an_unedited_pipeline_is_pinned(pipe: Any, erasures: Erasures, path: Path, registry: Registry) -> None:
    with Editor(pipe, erasures["tilt"], registry=registry), pytest.raises(efface.AlreadyEdited):
        pin(pipe, "tiny", [], path, registry=registry)


GOOD = """
format = 1
[model]
name = "tiny"
[model.sha256.float32]
unet = "00"
[[erasures]]
file = "a"
sha256 = "0"
method = "tilt"
plugin = ""
version = ""
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("format = 1", "format = 2", "format is 2; this efface reads 1"),
        ("format = 1", "format = true", "format is True"),
        ("format = 1", "", "format is None"),
        ("format = 1", "format = 1\nextra = 1", "the policy has no field 'extra'; it has: format, model, erasures"),
        ('name = "tiny"', "", "model needs either a name or a path"),
        ('name = "tiny"', 'name = "tiny"\npath = "x"', "model needs either a name or a path"),
        ('name = "tiny"', "name = 3", "model needs name, a text"),
        ('name = "tiny"', 'name = "tiny"\nallow_other_base = 1', "model needs allow_other_base, true or false"),
        ('name = "tiny"', 'name = "tiny"\nrevision = 1', "model has no field 'revision'"),
        ('[model.sha256.float32]\nunet = "00"', "", "model needs sha256, a table"),
        ('[model.sha256.float32]\nunet = "00"', "[model.sha256]", "model.sha256 has no digest"),
        ('unet = "00"', "unet = 0", "model.sha256.float32 must be a table of texts"),
        ('file = "a"', "", "erasure 1 needs file, a text"),
        ('file = "a"', 'file = "a"\nscale = -1', "erasure 1: scale must be a finite number >= 0, not -1"),
        ('file = "a"', 'file = "a"\nscale = nan', "erasure 1: scale must be a finite number >= 0, not nan"),
        ('file = "a"', 'file = "a"\nstrength = 1', "erasure 1 has no field 'strength'; it has: file, sha256"),
        ("[[erasures]]", "[[erasures", "Expected ']]'"),
    ],
)
def test_a_file_that_is_no_policy_is_refused_with_its_first_fault(
    old: str, new: str, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "efface.toml"
    file.write_text(GOOD)
    assert Policy.load(file).erasures[0].scale == 1
    file.write_text(GOOD.replace(old, new))
    with pytest.raises(PolicyError) as error:
        Policy.load(file)
    assert str(error.value).startswith(f"{file}: ")
    assert message in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"none\.toml: No such file"):
        Policy.load(tmp_path / "none.toml")


@pytest.mark.parametrize(
    "data",
    [
        {"text": 'quotes " and \\ and\nlines, \x7f, \x01, ü, 猫', "true": True, "number": 3, "small": 1e-5},
        {"a": {"b": {"c": "deep"}, "x": 1}, "list": [{"y": 1, "inner": {"z": 2.5}}, {}]},
        {"odd key": 1, "": {"ü": {}}},
    ],
)
def test_toml_says_what_it_was_given(data: dict[str, Any]) -> None:
    assert tomllib.loads(toml(data)) == data


# What is checked


def test_what_is_as_pinned_has_no_mismatch(policy: Policy, registry: Registry, pipe: Any, erasures: Erasures) -> None:
    read, found = erasures_of(policy, registry)
    assert read == [erasures["tilt dog"], erasures["nudge"]]
    assert found + model_of(policy, pipe) == []


def test_a_file_that_is_missing_or_damaged_is_named(policy: Policy, files: list[Path], registry: Registry) -> None:
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes()[:-1])
    assert mismatches(policy, registry) == [("file", one.file) for one in policy.erasures]


def test_another_erasure_in_the_file_is_told_by_its_digest(
    policy: Policy, files: list[Path], registry: Registry, erasures: Erasures
) -> None:
    erasures["tilt"].save(files[0])
    assert mismatches(policy, registry) == [("sha256", policy.erasures[0].file)]
    erasures["bend"].save(files[0])
    assert mismatches(policy, registry) == [("sha256", policy.erasures[0].file), ("file", policy.erasures[0].file)]


def test_a_method_that_is_not_there_is_a_mismatch(policy: Policy) -> None:
    assert mismatches(policy, Registry([])) == [("plugin", ""), ("plugin", "")]


@pytest.mark.parametrize(
    ("pinned", "found"),
    [
        (("Efface_Toys", "1.0"), []),
        (("efface-toys", "1.1"), ["efface-toys 1.1; installed is 1.0"]),
        (("efface-off", "1.0"), ["efface-off 1.0, which is not installed or disabled"]),
        (("efface-none", "1.0"), ["efface-none 1.0, which is not installed or disabled"]),
    ],
)
def test_a_plugin_has_the_version_that_was_pinned(
    pinned: tuple[str, str], found: list[str], policy: Policy, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = [
        PluginInfo("toys", "efface-toys", "1.0", "", "toys"),
        PluginInfo("off", "efface-off", "1.0", "", "off", disabled=True),
    ]
    monkeypatch.setattr(registry, "plugins", lambda: installed)
    wanted = changed(policy, plugin=pinned[0], version=pinned[1])
    texts = [one.text for one in erasures_of(wanted, registry)[1]]
    assert len(texts) == len(found)
    assert all(text.endswith(end) for text, end in zip(texts, found, strict=True))


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_one_changed_weight_is_another_model(part: str, policy: Policy) -> None:
    pipe = tiny_pipeline("sd1")
    assert model_of(policy, pipe) == []
    weight = next(iter(getattr(pipe, part).parameters())).data.view(-1)
    weight[0] = torch.nextafter(weight[0], torch.tensor(9.0))
    assert [(one.about, one.name) for one in model_of(policy, pipe)] == [("model", part)]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_cast_of_the_model_is_the_model(dtype: torch.dtype, policy: Policy, pipe: Any) -> None:
    cast = tiny_pipeline("sd1", dtype=dtype)
    assert model_of(policy, cast) == []
    assert model_of(policy, tiny_pipeline("sd1", seed=1, dtype=dtype)) != []


def test_a_precision_that_was_not_pinned_cannot_be_recognised(policy: Policy) -> None:
    found = model_of(policy, tiny_pipeline("sd1", dtype=torch.float64))
    assert [one.text for one in found] == [
        f"{part} is in float64, in which it was not pinned (pinned: float32, float16, bfloat16)"
        for part in ("text_encoder", "unet")
    ]


def test_mixed_precisions_cannot_be_recognised(policy: Policy) -> None:
    pipe = tiny_pipeline("sd1")
    pipe.unet.conv_in.half()
    assert [(one.name, one.text.split(",")[0]) for one in model_of(policy, pipe)] == [("unet", "unet is in mixed")]


def test_another_kind_of_pipeline_has_other_components(policy: Policy, shared: Callable[[str], Any]) -> None:
    found = model_of(policy, shared("sdxl"))
    assert [one.name for one in found] == ["text_encoder", "text_encoder_2", "unet"]
    reverse = dataclasses.replace(policy, digests=digests(shared("sdxl")))
    texts = [one.text for one in model_of(reverse, tiny_pipeline("sd1"))]
    assert texts[-1] == "the model has no text_encoder_2; tiny was pinned with one"


def test_adapters_do_not_make_another_model(policy: Policy) -> None:
    from peft import LoraConfig

    pipe = tiny_pipeline("sd1")
    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"]))
    assert model_of(policy, pipe) == []


# On a pipeline


def test_applying_gives_what_attaching_by_hand_gives(
    policy: Policy, path: Path, pipe: Any, registry: Registry, erasures: Erasures, latents: Any
) -> None:
    with Editor(pipe, registry=registry) as editor:
        editor.attach(erasures["tilt dog"], scale=0.5)
        editor.attach(erasures["nudge"])
        wanted = latents(pipe)
    for given in (path, str(path), policy):
        with efface.apply(pipe, given, registry=registry) as editor:
            assert [(entry.erasure.method, entry.scale) for entry in editor.entries] == [("tilt", 0.5), ("nudge", 1.0)]
            assert torch.equal(latents(pipe), wanted)


def test_everything_that_differs_is_named_and_nothing_is_attached(
    policy: Policy, path: Path, files: list[Path], registry: Registry, hooks: Any
) -> None:
    files[0].unlink()
    stranger = tiny_pipeline("sd1", seed=1)
    before = hooks(stranger)
    with pytest.raises(PolicyError) as error:
        efface.apply(stranger, path, registry=registry)
    for name in (str(path), "tilt dog.safetensors: No such file", "the weights of unet", "the weights of text_encoder"):
        assert name in str(error.value)
    assert hooks(stranger) == before
    assert Editor.of(stranger) is None


def test_an_edited_pipeline_is_refused(policy: Policy, pipe: Any, registry: Registry, erasures: Erasures) -> None:
    with Editor(pipe, erasures["bend"], registry=registry), pytest.raises(efface.AlreadyEdited):
        efface.apply(pipe, policy, registry=registry)


def test_when_one_cannot_be_attached_none_is(
    policy: Policy, pipe: Any, registry: Registry, hooks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, attach = hooks(pipe), Editor.attach

    def fails(self: Editor, erasure: Erasure, **options: Any) -> str:
        if self.entries:
            raise RuntimeError("in between")
        return attach(self, erasure, **options)

    monkeypatch.setattr(Editor, "attach", fails)
    with pytest.raises(RuntimeError, match="in between"):
        efface.apply(pipe, policy, registry=registry)
    assert hooks(pipe) == before


# In the weights


def test_a_fused_pipeline_draws_the_same_without_efface(
    policy: Policy, pipe: Any, registry: Registry, latents: Any, tmp_path: Path, state: Any
) -> None:
    from diffusers import DiffusionPipeline

    with efface.apply(pipe, policy, registry=registry) as editor:
        wanted, before = latents(pipe), state(pipe)
        bake(editor, tmp_path / "erased")
        assert state(pipe) == before
    loaded = DiffusionPipeline.from_pretrained(tmp_path / "erased", local_files_only=True)
    loaded.set_progress_bar_config(disable=True)
    torch.testing.assert_close(latents(loaded), wanted, rtol=0, atol=1e-4)  # float32, in another order
    base = pipe.unet.state_dict()
    saved = load_file(tmp_path / "erased" / "unet" / "diffusion_pytorch_model.safetensors")
    touched = [name for name in base if not torch.equal(base[name], saved[name])]
    assert len(touched) == 33  # all keys and values, and a convolution
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_what_no_weights_can_hold_is_refused_by_name_before_anything_is_written(
    pipe: Any, registry: Registry, erasures: Erasures, tmp_path: Path
) -> None:
    with Editor(pipe, *(erasures[name] for name in ("bend", "tilt", "fade")), registry=registry) as editor:
        with pytest.raises(PolicyError) as error:
            bake(editor, tmp_path / "erased")
        assert list(editor.obstacles()) == ["bend-cat", "fade-cat"]
    assert str(error.value).startswith("No weights can hold bend-cat (input at unet.mid_block")
    assert "; fade-cat (step at unet.step is no change of a weight). Take it" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_what_is_off_is_no_obstacle(pipe: Any, registry: Registry, erasures: Erasures) -> None:
    with Editor(pipe, erasures["bend"], erasures["tilt"], registry=registry) as editor:
        editor.disable("bend-cat")
        assert editor.obstacles() == {}
        editor.enable("bend-cat")
        assert list(editor.obstacles()) == ["bend-cat"]


def test_a_folder_with_something_in_it_is_left_alone(
    policy: Policy, pipe: Any, registry: Registry, tmp_path: Path
) -> None:
    folder = tmp_path / "taken"
    folder.mkdir()
    with efface.apply(pipe, policy, registry=registry) as editor:
        (folder / "mine").write_text("mine")
        with pytest.raises(CannotSave, match="is there already"):
            bake(editor, folder)
        assert [path.name for path in folder.iterdir()] == ["mine"]
        (folder / "mine").unlink()
        bake(editor, folder)
    assert (folder / "model_index.json").is_file()


def test_a_failure_leaves_neither_a_folder_nor_changed_weights(
    policy: Policy, pipe: Any, registry: Registry, tmp_path: Path, state: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(folder: Path) -> None:
        Path(folder).mkdir(exist_ok=True)
        (Path(folder) / "half").write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pipe, "save_pretrained", fails)
    there = sorted(tmp_path.iterdir())
    with efface.apply(pipe, policy, registry=registry) as editor:
        before = state(pipe)
        with pytest.raises(CannotSave, match="erased: No space left on device"):
            bake(editor, tmp_path / "erased")
        assert state(pipe) == before
    assert sorted(tmp_path.iterdir()) == there


KILLED = """
import os, signal, sys
from pathlib import Path
from types import SimpleNamespace
from efface.policy.baking import bake

def half(folder):
    Path(folder).mkdir(exist_ok=True)
    (Path(folder) / "model_index.json").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)

pipe = SimpleNamespace(save_pretrained=half)
bake(SimpleNamespace(pipe=pipe, obstacles=dict, fuse=int, unfuse=int), sys.argv[1])
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="nothing kills a process at once here")
def test_a_process_that_is_killed_while_it_writes_leaves_no_folder_and_the_next_one_writes_it(
    policy: Policy, pipe: Any, registry: Registry, tmp_path: Path
) -> None:
    folder = tmp_path / "erased"
    died = subprocess.run([sys.executable, "-c", KILLED, str(folder)])
    assert died.returncode == -signal.SIGKILL
    assert not folder.exists()
    assert [path.name for path in tmp_path.glob(".efface-*.partial/*")] == ["model_index.json"]
    with efface.apply(pipe, policy, registry=registry) as editor:
        bake(editor, folder)
    assert (folder / "unet" / "diffusion_pytorch_model.safetensors").is_file()
