"""Maps and adds can be written into the weights, and come out of them again to the last bit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import Tensor

from efface import AlreadyEdited, BadEdit, Dense, EditLost, Editor, Erasure, LowRank, Registry
from efface.errors import EffaceError
from efface.testing.pipelines import tiny_pipeline
from efface.weights import weight_of

LINEAR = ("tilt", "nudge", "word")
KEY = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"

Erasures = Mapping[str, Erasure]


@pytest.fixture
def open_editor(pipe: Any, registry: Registry, erasures: Erasures) -> Any:
    made: list[Editor] = []

    def make(*names: str) -> Editor:
        made.append(Editor(pipe, *(erasures[name] for name in names), registry=registry))
        return made[-1]

    yield make
    for editor in made:
        editor.close()


def weight_at(pipe: Any, name: str) -> Tensor:
    part, _, path = name.partition(".")
    found: Tensor = getattr(pipe, part).get_submodule(path.replace("layers.", "encoder.layers.")).weight
    return found


def guards(pipe: Any, hooks: Any) -> set[str]:
    """What kinds of hook are left."""
    return {line.split()[-1].partition(".")[0] for line in hooks(pipe)}


@pytest.mark.parametrize(
    "names", [("tilt",), ("nudge",), ("word",), LINEAR, ("tilt", "tilt dog", "nudge", "nudge dog")]
)
def test_fused_weights_give_the_pictures_that_hooks_give(
    names: tuple[str, ...], pipe: Any, open_editor: Any, latents: Any, hooks: Any
) -> None:
    base = latents(pipe)
    editor = open_editor(*names)
    wanted = latents(pipe)
    editor.fuse()
    assert guards(pipe, hooks) <= {"Opener", "EncoderOpener", "Closer"}
    torch.testing.assert_close(latents(pipe), wanted, rtol=0, atol=1e-5)
    assert (wanted - base).abs().max() > 1e-3


def test_the_weights_are_w_times_one_plus_e_plus_delta(
    pipe: Any, open_editor: Any, erasures: Erasures, toys: Any
) -> None:
    name = toys["nudge"].VALUE
    tilt, nudge, other = (erasures[one].tensors for one in ("tilt", "nudge", "nudge dog"))
    base = {one: weight_at(pipe, one).double().clone() for one in (name, KEY, toys["nudge"].CONVOLUTION)}
    editor = open_editor("tilt", "nudge", "nudge dog")
    editor.scale("tilt-cat", 0.5)
    editor.scale("nudge-dog", 2)
    editor.fuse()

    text = 0.5 * tilt["up"].double() @ tilt["down"].double()
    maps = nudge["map"].double() + 2 * other["map"].double()
    adds = sum(s * one["up"].double() @ one["down"].double() for s, one in ((1.0, nudge), (2.0, other)))
    eye = torch.eye(16, dtype=torch.float64)
    wanted = {
        KEY: base[KEY] @ (eye + text),
        # the projection reads what the map of the text has made of it
        name: (base[name] @ (eye + maps) + adds) @ (eye + text),
        toys["nudge"].CONVOLUTION: base[toys["nudge"].CONVOLUTION]
        + (nudge["kernel"].double() + 2 * other["kernel"].double()).view(16, 16, 3, 3),
    }
    for one, weight in wanted.items():
        assert torch.equal(weight_at(pipe, one), weight.float()), one


def test_factors_are_multiplied_in_float64(
    pipe: Any, registry: Registry, erasures: Erasures, toys: Any, monkeypatch: Any
) -> None:
    up = torch.ones(16, 3)
    down = torch.tensor([[2.0**30], [0.25], [-(2.0**30)]]).expand(3, 16)
    monkeypatch.setattr(toys["tilt"], "apply", lambda self, patch, fits: patch.add(KEY, LowRank(up, down)))
    before = weight_at(pipe, KEY).double().clone()
    with Editor(pipe, erasures["tilt"], registry=registry) as editor:
        editor.fuse()
        assert torch.equal(weight_at(pipe, KEY), (before + down[1].double()).float())


def test_a_dense_change_of_a_half_precision_weight_is_cast_once(
    registry: Registry, erasures: Erasures, toys: Any, monkeypatch: Any
) -> None:
    pipe = tiny_pipeline("sd1", dtype=torch.float16)
    change = torch.randn(16, 16, generator=torch.Generator().manual_seed(0)) * 0.01
    monkeypatch.setattr(toys["tilt"], "apply", lambda self, patch, fits: patch.map("unet.text", Dense(change)))
    before = weight_at(pipe, KEY).clone()
    with Editor(pipe, erasures["tilt"], registry=registry) as editor:
        editor.fuse()
        wanted = before.double() + before.double() @ change.double()
        assert torch.equal(weight_at(pipe, KEY), wanted.half())
        editor.unfuse()
        assert torch.equal(weight_at(pipe, KEY), before)


def test_a_disabled_erasure_is_not_written(pipe: Any, open_editor: Any, weights: Any) -> None:
    before = weights(pipe)
    editor = open_editor("tilt", "nudge")
    editor.disable()
    editor.fuse()
    assert weights(pipe) == before


def test_unfusing_gives_bytes_and_hooks_back(pipe: Any, open_editor: Any, state: Any, hooks: Any, latents: Any) -> None:
    editor = open_editor(*LINEAR)
    editor.scale("nudge-cat", 0.5)
    before, wired, wanted = state(pipe), hooks(pipe), latents(pipe)
    editor.fuse()
    assert state(pipe).weights != before.weights
    editor.unfuse()
    assert state(pipe) == before
    assert hooks(pipe) == wired
    assert editor.verify() == []
    assert torch.equal(latents(pipe), wanted)


def test_fusing_again_after_unfusing_writes_the_same(pipe: Any, open_editor: Any, weights: Any) -> None:
    editor = open_editor("tilt", "nudge")
    editor.fuse()
    first = weights(pipe)
    editor.unfuse()
    editor.fuse()
    assert weights(pipe) == first


def test_closing_a_fused_editor_gives_the_base_back(
    pipe: Any, registry: Registry, erasures: Erasures, state: Any, latents: Any
) -> None:
    before, base = state(pipe), latents(pipe)
    with Editor(pipe, erasures["tilt"], erasures["word"], registry=registry) as editor:
        editor.fuse()
    assert state(pipe) == before
    assert torch.equal(latents(pipe), base)
    assert editor.entries == ()
    editor.attach(erasures["tilt"])
    editor.close()
    assert state(pipe) == before


def test_closing_a_fused_editor_needs_no_method(
    pipe: Any, registry: Registry, erasures: Erasures, toys: Any, state: Any, monkeypatch: Any
) -> None:
    before = state(pipe)
    editor = Editor(pipe, erasures["tilt"], registry=registry)
    editor.fuse()

    def failing(self: Any, patch: Any, fits: Any) -> None:
        raise RuntimeError("cannot")

    monkeypatch.setattr(toys["tilt"], "apply", failing)
    editor.close()
    assert state(pipe) == before


def test_an_unfusing_that_fails_leaves_it_fused(
    pipe: Any, open_editor: Any, toys: Any, state: Any, latents: Any, monkeypatch: Any
) -> None:
    editor = open_editor("tilt", "nudge")
    editor.fuse()
    before, wanted = state(pipe), latents(pipe)

    def failing(self: Any, patch: Any, fits: Any) -> None:
        raise RuntimeError("cannot")

    with monkeypatch.context() as patched:
        patched.setattr(toys["nudge"], "apply", failing)
        with pytest.raises(RuntimeError, match="cannot"):
            editor.unfuse()
    assert state(pipe) == before
    assert torch.equal(latents(pipe), wanted)
    editor.unfuse()


def test_the_list_stays_as_it_is_while_fused(
    pipe: Any, open_editor: Any, erasures: Erasures, state: Any, latents: Any
) -> None:
    editor = open_editor("tilt", "nudge")
    editor.fuse()
    before, listed, wanted = state(pipe), editor.entries, latents(pipe)
    for act in (
        lambda: editor.attach(erasures["word"]),
        lambda: editor.detach("tilt-cat"),
        lambda: editor.detach(),
        lambda: editor.enable(),
        lambda: editor.disable("tilt-cat"),
        lambda: editor.scale("tilt-cat", 0.5),
        lambda: editor.move("tilt-cat", 1),
        editor.reattach,
        editor.fuse,
    ):
        with pytest.raises(EffaceError, match=r"while fused; call unfuse\(\) first"):
            act()
    assert state(pipe) == before
    assert editor.entries == listed
    assert torch.equal(latents(pipe), wanted)


def test_a_fused_pipeline_still_has_its_editor(
    pipe: Any, open_editor: Any, registry: Registry, erasures: Erasures
) -> None:
    editor = open_editor("tilt")
    editor.fuse()
    assert Editor.of(pipe) is editor
    with pytest.raises(AlreadyEdited):
        Editor(pipe, erasures["tilt dog"], registry=registry)
    assert len(editor.plan().erasures) == 1


def test_unfusing_what_is_not_fused_is_refused(open_editor: Any) -> None:
    with pytest.raises(EffaceError, match="not fused"):
        open_editor("tilt").unfuse()


@pytest.mark.parametrize(
    ("name", "point"),
    [("bend", r"input at unet\.mid_block.*to_q"), ("fade", r"step at unet\.step"), ("team", r"output at .*to_out\.0")],
)
def test_tensor_edits_are_refused_by_name_before_anything_changes(
    name: str, point: str, pipe: Any, open_editor: Any, state: Any, hooks: Any
) -> None:
    editor = open_editor("tilt", "nudge", name)
    before, wired = state(pipe), hooks(pipe)
    with pytest.raises(BadEdit, match=rf"Cannot fuse: {point} is no change of a weight"):
        editor.fuse()
    assert state(pipe) == before
    assert hooks(pipe) == wired
    editor.disable(f"{name}-cat")
    editor.fuse()


def test_a_lora_around_a_layer_is_refused_before_anything_changes(
    registry: Registry, erasures: Erasures, state: Any, toys: Any
) -> None:
    pipe = tiny_pipeline("sd1")
    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_v"], init_lora_weights=False))
    for name, point in (("nudge", toys["nudge"].VALUE), ("tilt", "unet.text")):
        with Editor(pipe, erasures[name], registry=registry) as editor:
            before = state(pipe)
            with pytest.raises(BadEdit, match=f"Cannot fuse: an adapter is around a layer that {point} concerns"):
                editor.fuse()
            assert state(pipe) == before


def test_a_lora_that_came_after_the_edit_is_refused_too(registry: Registry, erasures: Erasures, state: Any) -> None:
    pipe = tiny_pipeline("sd1")
    with Editor(pipe, erasures["nudge"], registry=registry) as editor:
        pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_v"], init_lora_weights=False))
        before = state(pipe)
        with pytest.raises(BadEdit, match="an adapter is around"):
            editor.fuse()
        assert state(pipe) == before


def test_fused_projections_are_refused_before_anything_changes(
    registry: Registry, erasures: Erasures, state: Any
) -> None:
    pipe = tiny_pipeline("sd1")
    with Editor(pipe, erasures["tilt"], registry=registry) as editor:
        pipe.fuse_qkv_projections(vae=False)
        before = state(pipe)
        with pytest.raises(BadEdit, match=r"Cannot fuse: fuse_qkv_projections\(\) bypasses .*to_k"):
            editor.fuse()
        assert state(pipe) == before
        pipe.unfuse_qkv_projections(vae=False)
        editor.fuse()


def test_a_projection_of_the_text_is_refused(pipe: Any, open_editor: Any, project_text: Any, weights: Any) -> None:
    editor, before = open_editor("tilt"), weights(pipe)
    project_text()
    with pytest.raises(BadEdit, match="encoder_hid_proj"):
        editor.fuse()
    assert weights(pipe) == before


# What happens to fused weights meanwhile


def small_lora(pipe: Any) -> None:
    value = "unet.up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_v"
    pipe.load_lora_weights({f"{value}.lora_A.weight": torch.ones(1, 16), f"{value}.lora_B.weight": torch.ones(16, 1)})


def test_a_lora_beside_fused_weights_is_refused_until_they_are_unfused(
    registry: Registry, erasures: Erasures, latents: Any
) -> None:
    pipe = tiny_pipeline("sd1")
    small_lora(pipe)
    with Editor(pipe, erasures["nudge"], registry=registry):
        wanted = latents(pipe)
    pipe.unload_lora_weights()
    with Editor(pipe, erasures["nudge"], registry=registry) as editor:
        editor.fuse()
        small_lora(pipe)
        with pytest.raises(EditLost, match=r"adapter .* fused into the weight .* Call editor\.unfuse\(\)"):
            latents(pipe)
        editor.unfuse()
        assert torch.equal(latents(pipe), wanted)


def test_weights_that_something_else_changed_are_not_put_back(
    registry: Registry, erasures: Erasures, weights: Any
) -> None:
    pipe = tiny_pipeline("sd1")
    before = weights(pipe)
    editor = Editor(pipe, erasures["nudge"], registry=registry)
    editor.fuse()
    small_lora(pipe)
    pipe.fuse_lora()
    merged = weights(pipe)
    for act in (editor.unfuse, editor.close):
        with pytest.raises(EffaceError, match=r"attn2\.to_v was changed after fuse\(\).*unfuse_lora"):
            act()
    assert weights(pipe) == merged
    pipe.unfuse_lora()
    editor.close()
    pipe.unload_lora_weights()
    assert weights(pipe) == before


def test_unfusing_reaches_the_copies_in_fused_projections(registry: Registry, erasures: Erasures, latents: Any) -> None:
    pipe = tiny_pipeline("sd1")
    plain = latents(pipe)
    pipe.fuse_qkv_projections(vae=False)
    base = latents(pipe)
    pipe.unfuse_qkv_projections(vae=False)
    with Editor(pipe, erasures["tilt"], erasures["nudge"], registry=registry) as editor:
        editor.fuse()
        fused = latents(pipe)
        pipe.fuse_qkv_projections(vae=False)
        torch.testing.assert_close(latents(pipe), fused, rtol=0, atol=1e-4)
        editor.unfuse()
        torch.testing.assert_close(latents(pipe), fused, rtol=0, atol=1e-4)
    assert torch.equal(latents(pipe), base)
    pipe.unfuse_qkv_projections(vae=False)
    assert torch.equal(latents(pipe), plain)


def test_a_cast_is_no_change_of_the_weights(registry: Registry, erasures: Erasures) -> None:
    pipe = tiny_pipeline("sd1")
    base = weight_at(pipe, KEY).clone()
    for dtype in (torch.bfloat16, torch.float16, torch.float64, torch.float8_e4m3fn):
        with Editor(pipe, erasures["tilt"], registry=registry, allow_other_base=True) as editor:
            editor.fuse()
            pipe.unet.to(dtype)
            editor.unfuse()
            assert torch.equal(weight_at(pipe, KEY), base.to(dtype))
        pipe.unet.to(torch.float32)
        with torch.no_grad():
            weight_at(pipe, KEY).copy_(base)


def test_offloaded_weights_come_back_too(registry: Registry, erasures: Erasures) -> None:
    from accelerate import cpu_offload

    pipe = tiny_pipeline("sd1")
    base = weight_at(pipe, KEY).clone()
    with Editor(pipe, erasures["tilt"], registry=registry) as editor:
        editor.fuse()
        cpu_offload(pipe.unet, torch.device("cpu"))
        assert weight_at(pipe, KEY).is_meta
    module = pipe.unet.get_submodule(KEY.removeprefix("unet."))
    assert torch.equal(weight_of(module), base)


def test_the_image_projection_of_an_ip_adapter_is_none_of_the_text(
    registry: Registry, erasures: Erasures, weights: Any
) -> None:
    pipe = tiny_pipeline("sd1")
    before, pipe.unet.encoder_hid_proj = weights(pipe), torch.nn.Identity()
    pipe.unet.config.encoder_hid_dim_type = "ip_image_proj"
    with Editor(pipe, erasures["tilt"], registry=registry) as editor:
        editor.fuse()
        assert weights(pipe) != before
