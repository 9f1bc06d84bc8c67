"""An exported LoRA, loaded by diffusers without efface, paints what the attached erasures paint."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

import efface
from efface import Editor, EffaceError, Erasure, HookError, Registry
from efface.export import lora
from efface.export.factors import factors, thin
from efface.testing.pipelines import FAMILIES, tiny_pipeline
from efface_hooks import LowRank, Wiring

# Of what an erasure changes in a picture: the file holds float32 factors, and diffusers adds their product to what
# the layer makes, where the hook maps its input.
TOLERANCE = 1e-3
FORMATS = ("diffusers-lora", "kohya-lora")


def thinly(name: str, outs: int, ins: int, rank: int = 1) -> LowRank:
    draw = torch.Generator().manual_seed(sum(name.encode()))
    return LowRank(torch.randn(outs, rank, generator=draw), torch.randn(rank, ins, generator=draw))


@dataclass(frozen=True)
class Sweep:
    """A thin change of everything of some kinds; ranks differ from layer to layer."""

    name: ClassVar[str] = "sweep"
    kinds: str = efface.setting("cross_attn", help="kinds of point begin with this")

    def fit(self, model: efface.Model, request: efface.Request, run: efface.Run) -> efface.Fit:
        return efface.Fit({})

    def apply(self, patch: efface.Patch, fits: Sequence[efface.Fitted]) -> None:
        for number, point in enumerate(patch.points):
            if point.kind.startswith(self.kinds) and point.kind != "text":
                outs, ins = point.out_features or 0, point.in_features or 0
                patch.add(point, thinly(point.name, outs, ins, 1 + number % 2))
            elif point.kind == self.kinds == "text":
                width = point.in_features or 0
                patch.map(point, thinly(point.name, width, width))


class Plugin:
    @efface.hookimpl
    def efface_methods(self) -> list[type]:
        return [Sweep]


SWEEPS = Registry([Plugin()])


def picture(pipe: Any) -> Tensor:
    latents: Tensor = pipe(
        "a cat", num_inference_steps=1, output_type="latent", generator=torch.Generator().manual_seed(0)
    ).images
    return latents


def sweep(pipe: Any, kinds: str) -> Erasure:
    return efface.erase(pipe, "cat", anchor="tree", method=Sweep(kinds=kinds), registry=SWEEPS)


def assert_same_pictures(pipe: Any, editor: Editor, form: Any, file: Path, dtype: str = "float32") -> None:
    """What is attached and what is loaded from its export change the picture in the same way."""
    attached = picture(pipe)
    lora(editor, form, dtype).save(file)
    editor.close()
    base = picture(pipe)
    pipe.load_lora_weights(str(file))
    loaded = picture(pipe)
    pipe.unload_lora_weights()
    assert Wiring.of(pipe) is None
    effect = (attached - base).abs().max()
    assert effect > 2e-3
    share = {"float32": TOLERANCE, "float16": 0.05, "bfloat16": 0.3}[dtype]
    assert (loaded - attached).abs().max() <= share * effect
    torch.testing.assert_close(picture(pipe), base, rtol=0, atol=1e-5)


def refusal(editor: Editor, to: Any, **options: Any) -> str:
    with pytest.raises(HookError) as refused:
        lora(editor, to, **options)
    return str(refused.value)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kinds", ["text", "cross_attn", "self_attn", "text_encoder"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_projection_has_a_name_that_diffusers_reads(family: Any, kinds: str, form: str, tmp_path: Path) -> None:
    pipe = tiny_pipeline(family)
    editor = Editor(pipe, sweep(pipe, kinds), registry=SWEEPS)
    assert_same_pictures(pipe, editor, form, tmp_path / "lora.safetensors")


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kinds", [*"qkv", "out", "fc1", "fc2"])
def test_a_text_encoder_may_be_changed_in_one_sort_of_layer(kinds: str, form: str, tmp_path: Path) -> None:
    pipe = tiny_pipeline("sd1")
    editor = Editor(pipe, sweep(pipe, f"text_encoder.{kinds}"), registry=SWEEPS)
    assert_same_pictures(pipe, editor, form, tmp_path / "lora.safetensors")


@pytest.mark.parametrize("form", FORMATS)
def test_a_stack_is_one_lora(form: str, registry: Registry, erasures: Mapping[str, Erasure], tmp_path: Path) -> None:
    pipe = tiny_pipeline("sd1")
    editor = Editor(pipe, *(erasures[name] for name in ("tilt", "nudge", "tilt dog", "word")), registry=registry)
    editor.scale("tilt-dog", 0.5)
    editor.scale("nudge-cat", 2)
    assert_same_pictures(pipe, editor, form, tmp_path / "lora.safetensors")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_file_in_half_precision_is_half_as_large(
    dtype: str, registry: Registry, erasures: Mapping[str, Erasure], tmp_path: Path
) -> None:
    pipe = tiny_pipeline("sd1")
    editor = Editor(pipe, erasures["tilt"], registry=registry)
    whole, half = (
        sum(t.nbytes for t in lora(editor, "diffusers-lora", d).tensors.values()) for d in ("float32", dtype)
    )
    assert half * 2 == whole
    assert_same_pictures(pipe, editor, "diffusers-lora", tmp_path / "lora.safetensors", dtype)


def test_the_factors_are_the_change_that_fusing_writes(registry: Registry, erasures: Mapping[str, Erasure]) -> None:
    pipe = tiny_pipeline("sd1", dtype=torch.float64)
    names = ("tilt", "nudge", "word", "tilt dog", "nudge dog")
    with Editor(pipe, *(erasures[name] for name in names), registry=registry, allow_other_base=True) as editor:
        editor.scale("nudge-dog", 0.3)
        found = factors(pipe, editor.patches)
        base = {name: place.module.weight.clone() for name, (place, _) in found.items()}
        editor.fuse()
        for name, (place, change) in found.items():
            written = place.module.weight - base[name]
            assert written.abs().max() > 1e-3
            torch.testing.assert_close(change.dense().view_as(written), written, rtol=0, atol=1e-6, msg=name)


def test_a_map_of_the_text_has_its_own_rank_everywhere(registry: Registry, erasures: Mapping[str, Erasure]) -> None:
    pipe = tiny_pipeline("sd1")
    with Editor(pipe, erasures["tilt"], registry=registry) as editor:
        made = lora(editor, "kohya-lora")
        assert set(made.ranks.values()) == {2}
        assert {name.rpartition(".")[2] for name in made.ranks} == {"to_k", "to_v"}
        alphas = {name: float(value) for name, value in made.tensors.items() if name.endswith(".alpha")}
        assert len(alphas) == len(made.ranks)
        assert set(alphas.values()) == {2.0}
        editor.attach(erasures["tilt dog"])
        assert set(lora(editor, "kohya-lora").ranks.values()) == {4}


def test_an_erasure_that_is_off_is_left_out(registry: Registry, erasures: Mapping[str, Erasure]) -> None:
    pipe = tiny_pipeline("sd1")
    with Editor(pipe, erasures["tilt"], erasures["word"], erasures["fade"], registry=registry) as editor:
        editor.disable("word-cat")
        editor.scale("fade-cat", 0)
        made = lora(editor, "diffusers-lora")
        assert all(name.startswith("unet.") for name in made.tensors)
        assert made.metadata["efface.erasures"] == erasures["tilt"].digest
        editor.disable()
        with pytest.raises(EffaceError, match="no erasure that acts"):
            lora(editor, "diffusers-lora")


def test_what_no_weight_can_hold_is_refused_by_name(registry: Registry, erasures: Mapping[str, Erasure]) -> None:
    pipe = tiny_pipeline("sd1")
    with Editor(pipe, *(erasures[name] for name in ("tilt", "fade", "team")), registry=registry) as editor:
        said = refusal(editor, "kohya-lora")
    assert said.startswith("Cannot export: fade-cat: step at unet.step is no change of a weight; team-cat: output at ")
    assert "tilt" not in said


def test_fused_weights_are_refused(registry: Registry, erasures: Mapping[str, Erasure]) -> None:
    with Editor(tiny_pipeline("sd1"), erasures["tilt"], registry=registry) as editor:
        editor.fuse()
        with pytest.raises(EffaceError, match=r"while fused; call unfuse\(\) first"):
            lora(editor, "kohya-lora")


def test_a_layer_without_a_name_is_refused(registry: Registry, toys: Any, monkeypatch: Any) -> None:
    pipe = tiny_pipeline("sdxl")
    places = {"kohya-lora": "unet.conv_in", "diffusers-lora": "text_encoder_2.text_projection"}
    for form, place in places.items():
        weight = pipe.unet.conv_in.weight.flatten(1) if "conv" in place else pipe.text_encoder_2.text_projection.weight
        delta = efface.Dense(torch.ones_like(weight))
        monkeypatch.setattr(toys["tilt"], "apply", lambda self, patch, fits, p=place, d=delta: patch.add(p, d))
        erasure = efface.erase(pipe, "cat", anchor="tree", method="tilt", registry=registry)
        with Editor(pipe, erasure, registry=registry) as editor:
            said = refusal(editor, form)
        assert said.startswith("Cannot export: ")
        assert place in said


@pytest.mark.parametrize(("argument", "value"), [("to", "ckpt"), ("dtype", "int8")])
def test_an_unknown_form_is_refused_with_those_there_are(
    argument: str, value: str, registry: Registry, erasures: Mapping[str, Erasure]
) -> None:
    with Editor(tiny_pipeline("sd1"), erasures["tilt"], registry=registry) as editor:
        said = refusal(editor, **({"to": "kohya-lora"} | {argument: value}))
    assert f"No {'format' if argument == 'to' else 'dtype'} '{value}'; there are" in said


def test_thin_factors_have_the_rank_of_their_product_and_like_size() -> None:
    draw = torch.Generator().manual_seed(0)
    up, down = (torch.randn(*shape, generator=draw, dtype=torch.float64) for shape in ((9, 3), (3, 20)))
    wide = LowRank(torch.cat([up, up * 1e3, up], 1), torch.cat([down, down, down * 1e-3], 0))
    made = thin(wide)
    assert made.rank == 3
    torch.testing.assert_close(made.dense(), wide.dense(), rtol=1e-10, atol=1e-6)
    torch.testing.assert_close(made.up.norm(dim=0), made.down.norm(dim=1))


def test_the_file_says_what_is_in_it(registry: Registry, erasures: Mapping[str, Erasure], tmp_path: Path) -> None:
    with Editor(tiny_pipeline("sd1"), erasures["tilt"], registry=registry) as editor:
        lora(editor, "kohya-lora").save(tmp_path / "k.safetensors")
    with safe_open(tmp_path / "k.safetensors", "pt") as file:
        said = file.metadata()
    assert said["efface.erasures"] == erasures["tilt"].digest
    assert (said["ss_network_dim"], said["ss_network_alpha"]) == ("2", "2")
    assert json.loads(json.dumps(said)) == said
    with pytest.raises(efface.BadArtifact, match="not an erasure"):
        Erasure.load(tmp_path / "k.safetensors")
    assert all(name.startswith("lora_unet_") for name in load_file(tmp_path / "k.safetensors"))
