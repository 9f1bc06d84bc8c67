"""An erasure recognises the model it was made for, and refuses another one."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from accelerate import cpu_offload
from peft import LoraConfig

from efface import Editor, Erasure, Model, Registry, WrongBase, erase, points
from efface.fingerprint import TOLERANCE, Likeness, check, fingerprint, sketch
from efface.testing.pipelines import FAMILIES, tiny_pipeline

Erasures = Mapping[str, Erasure]


@pytest.fixture(scope="module")
def base() -> Any:
    """A pipeline that no test changes."""
    return tiny_pipeline("sd1")


@pytest.fixture(scope="module")
def everywhere(base: Any) -> Any:
    return points(base)


@pytest.fixture(scope="module")
def taken(base: Any, everywhere: Any) -> dict[str, Any]:
    return fingerprint(base, everywhere)


@pytest.fixture
def other(base: Any) -> Any:
    """A copy that a test may change."""
    pipe = copy.copy(base)
    pipe.unet, pipe.text_encoder = copy.deepcopy(base.unet), copy.deepcopy(base.text_encoder)
    return pipe


def text_points(pipe: Any) -> Any:
    return points(pipe, "text")


# The same model


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_knows_itself(family: Any, shared: Any) -> None:
    pipe = shared(family)
    assert check(fingerprint(pipe, points(pipe)), pipe, points(pipe)) == Likeness(0.0, TOLERANCE)


def test_a_model_is_known_after_saving_and_loading(base: Any, taken: Any, everywhere: Any, tmp_path: Any) -> None:
    from diffusers import StableDiffusionPipeline

    base.save_pretrained(tmp_path)
    loaded = StableDiffusionPipeline.from_pretrained(tmp_path, local_files_only=True)
    assert check(taken, loaded, everywhere).difference == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cast_to_float16_stays_within_a_thousandth(family: Any, shared: Any) -> None:
    pipe = shared(family)
    half = tiny_pipeline(family, dtype=torch.float16)
    likeness = check(fingerprint(pipe, points(pipe)), half, points(half))
    assert 0 < likeness.difference <= likeness.allowed == 1e-3
    assert check(fingerprint(half, points(half)), pipe, points(pipe)) == likeness


def test_a_cast_to_bfloat16_stays_within_a_hundredth(taken: Any, everywhere: Any) -> None:
    brain = tiny_pipeline("sd1", dtype=torch.bfloat16)
    assert 1e-3 < check(taken, brain, everywhere).difference <= 1e-2
    assert 1e-3 < check(fingerprint(brain, everywhere), tiny_pipeline("sd1"), everywhere).difference <= 1e-2


def test_weights_that_training_hardly_moved_survive_a_cast_to_float16(everywhere: Any) -> None:
    whole, half = tiny_pipeline("sd1"), tiny_pipeline("sd1", dtype=torch.float16)
    generator = torch.Generator().manual_seed(0)
    for name, weight in whole.text_encoder.named_parameters():
        if name.endswith("k_proj.bias"):
            with torch.no_grad():
                weight.copy_(torch.randn(weight.shape, generator=generator) * 5e-7)
                half.text_encoder.get_parameter(name).copy_(weight)
    assert check(fingerprint(whole, everywhere), half, everywhere).difference <= 1e-3


def test_only_bfloat16_is_given_the_wider_tolerance(other: Any, taken: Any, everywhere: Any) -> None:
    nudged(other.unet.conv_in.weight, 1.01)
    with pytest.raises(WrongBase, match=r"most in unet\.conv_in\.weight; allowed 0\.001"):
        check(taken, other, everywhere)
    check(taken | {"dtype": "bfloat16"}, other, everywhere)


def test_a_lora_is_no_part_of_the_base(other: Any, taken: Any, everywhere: Any) -> None:
    for part in (other.unet, other.text_encoder):
        part.add_adapter(
            LoraConfig(r=2, target_modules=["to_k", "to_v", "to_q", "q_proj", "v_proj"], init_lora_weights=False)
        )
    assert fingerprint(other, everywhere) == taken
    assert fingerprint(other, text_points(other)) == fingerprint(tiny_pipeline("sd1"), text_points(other))


def test_what_other_features_add_is_no_part_of_the_base(other: Any, taken: Any, everywhere: Any) -> None:
    other.unet.fuse_qkv_projections()
    assert check(taken, other, everywhere).difference == 0
    other.unet.unfuse_qkv_projections()  # diffusers leaves the fused layers behind
    other.unet.encoder_hid_proj = torch.nn.ModuleDict({"image_projection_layers": torch.nn.Linear(3, 3)})
    attention = other.unet.mid_block.attentions[0].transformer_blocks[0].attn2
    attention.processor = torch.nn.ModuleDict({"to_k_ip": torch.nn.Linear(3, 3)})
    assert check(taken, other, everywhere).difference == 0


def test_weights_kept_in_bfloat16_have_its_tolerance(other: Any, taken: Any, everywhere: Any) -> None:
    other.unet.enable_layerwise_casting(storage_dtype=torch.bfloat16, compute_dtype=torch.float32)
    assert other.unet.dtype is torch.float32
    likeness = check(taken, other, everywhere)
    assert likeness.difference > TOLERANCE
    assert likeness.same


def test_an_offloaded_model_is_known(other: Any, taken: Any, everywhere: Any, registry: Registry, toys: Any) -> None:
    cpu_offload(other.unet, execution_device=torch.device("cpu"))
    assert {weight.device.type for weight in other.unet.parameters()} == {"meta"}
    assert fingerprint(other, everywhere) == taken
    assert Model(other, registry).weight(toys["nudge"].VALUE).device.type == "cpu"


def test_an_erasure_attaches_to_a_model_with_a_lora(registry: Registry, erasures: Erasures, other: Any) -> None:
    other.unet.add_adapter(LoraConfig(r=2, target_modules=["to_k", "to_v"], init_lora_weights=False))
    with Editor(other, erasures["tilt"], erasures["fade"], registry=registry) as editor:
        assert [one.base_difference for one in editor.plan().erasures] == [0, 0]


# Another model


def test_other_weights_are_refused_unless_allowed_by_name(registry: Registry, erasures: Erasures) -> None:
    stranger = tiny_pipeline("sd1", seed=1)
    for name in ("tilt", "fade", "word"):
        with pytest.raises(WrongBase, match=r"made for other weights.*allow_other_base=True"):
            Editor(stranger, erasures[name], registry=registry)
        with Editor(stranger, erasures[name], allow_other_base=True, registry=registry) as editor:
            (planned,) = editor.plan().erasures
            assert planned.base_difference > 0.1
            assert planned.other_base
            assert "another base" in str(editor.plan())


def test_another_structure_is_refused_whatever_is_allowed(registry: Registry, erasures: Erasures, shared: Any) -> None:
    for family, name in (("sd2", "bend"), ("sdxl", "bend"), ("sdxl", "tilt")):
        with pytest.raises(WrongBase, match="another structure"):
            Editor(shared(family), erasures[name], allow_other_base=True, registry=registry)


def test_a_fingerprint_of_nothing_known_is_refused(base: Any, erasures: Erasures, registry: Registry) -> None:
    header = dataclasses.replace(erasures["tilt"].header, base={})
    with pytest.raises(WrongBase, match="another structure"):
        Editor(base, Erasure(header, erasures["tilt"].tensors), allow_other_base=True, registry=registry)


def test_one_changed_weight_is_noticed(other: Any, taken: Any, everywhere: Any) -> None:
    with torch.no_grad():
        other.unet.up_blocks[0].resnets[0].conv1.weight.add_(
            torch.randn(other.unet.up_blocks[0].resnets[0].conv1.weight.shape) * 0.01
        )
    with pytest.raises(WrongBase, match=r"most in unet\.up_blocks\.0\.resnets\.0\.conv1\.weight"):
        check(taken, other, everywhere)


def test_a_weight_that_is_not_a_number_is_noticed(other: Any, taken: Any, everywhere: Any) -> None:
    with torch.no_grad():
        other.unet.conv_out.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(WrongBase, match=r"unet\.conv_out\.weight"):
        check(taken, other, everywhere)


def test_a_weight_of_another_shape_changes_the_structure(other: Any, taken: Any, everywhere: Any) -> None:
    other.unet.conv_out.bias = torch.nn.Parameter(torch.zeros(5))
    assert fingerprint(other, everywhere)["structure"] != taken["structure"]


# What an erasure depends on


def test_a_change_of_the_text_does_not_look_at_the_rest_of_the_unet(other: Any, base: Any) -> None:
    taken = fingerprint(base, text_points(base))
    with torch.no_grad():
        for name, weight in other.unet.named_parameters():
            if not name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")):
                weight.add_(1)
    assert check(taken, other, text_points(other)).difference == 0


@pytest.mark.parametrize("at", ["unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k", "text_encoder.layers.2"])
def test_a_change_of_the_text_depends_on_text_encoder_keys_and_values(at: str, other: Any, base: Any) -> None:
    taken = fingerprint(base, text_points(base))
    part, _, path = at.partition(".")
    path = path.replace("layers.2", "encoder.layers.2.mlp.fc2")
    nudged(getattr(other, part).get_submodule(path).weight, 1.5)
    with pytest.raises(WrongBase):
        check(taken, other, text_points(other))


@pytest.mark.parametrize("kind", ["skip", "mid", "step", "cross_attn.v", "self_attn.q"])
def test_whatever_acts_inside_the_unet_depends_on_everything(kind: str, base: Any, taken: Any) -> None:
    assert fingerprint(base, points(base, kind)[:1]) == taken
    assert fingerprint(base, [*text_points(base), points(base, kind)[0]]) == taken


def test_a_change_of_the_text_encoder_is_a_change_of_the_text(base: Any) -> None:
    assert fingerprint(base, points(base, "text_encoder.fc2")) == fingerprint(base, text_points(base))


def test_both_text_encoders_count(shared: Any) -> None:
    pipe = shared("sdxl")
    names = fingerprint(pipe, text_points(pipe))["weights"]
    assert any(name.startswith("text_encoder.") for name in names)
    assert any(name.startswith("text_encoder_2.") for name in names)


def test_fitting_records_the_base(base: Any, registry: Registry) -> None:
    erasure = erase(base, "cat", method="tilt", registry=registry)
    assert erasure.header.base == fingerprint(base, text_points(base))


# The sketch


def test_a_sketch_has_eight_numbers_that_depend_on_name_and_values_alone() -> None:
    tensor = torch.randn(70, 70, generator=torch.Generator().manual_seed(0))
    assert len(sketch("a", tensor)) == 8
    torch.manual_seed(5)
    assert sketch("a", tensor) == sketch("a", tensor.clone().T.contiguous().T)
    assert sketch("a", tensor) != sketch("b", tensor)
    assert sketch("a", tensor) == sketch("a", tensor * 4)


def test_numbers_too_small_for_float16_count_little() -> None:
    tensor = torch.randn(300, generator=torch.Generator().manual_seed(0))
    quiet, wanted = torch.tensor(sketch("a", tensor * 1e-6)), torch.tensor(sketch("a", tensor * 1e-3))
    torch.testing.assert_close(quiet, wanted * 1e-2 * tensor.square().mean().sqrt(), rtol=0, atol=2e-6)


def test_a_sketch_is_a_signed_sum_over_the_norm() -> None:
    for size in (1, 3, 5000):
        tensor = torch.zeros(size)
        tensor[-1] = -7.0
        assert [abs(value) for value in sketch("a", tensor)] == [1.0] * 8
    assert sketch("a", torch.zeros(3)) == [0.0] * 8
    assert sketch("a", torch.zeros(0)) == [0.0] * 8


def test_a_sketch_is_linear_across_the_pieces_it_is_made_in() -> None:
    from efface import fingerprint as module

    size = module.CHUNK * module.FOLD + 5000
    generator = torch.Generator().manual_seed(0)
    one, two = torch.randn(size, generator=generator).double(), torch.randn(size, generator=generator).double()
    sums = [torch.tensor(sketch("a", tensor)) * tensor.norm().float() for tensor in (one, two, one + two)]
    torch.testing.assert_close(sums[0] + sums[1], sums[2], rtol=0, atol=1e-2)
    assert sums[0].abs().max() > 1


def test_strangers_sketches_are_of_size_one_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    one, two = (torch.tensor(sketch("a", torch.randn(300, 300, generator=generator))) for _ in range(2))
    assert (one - two).abs().max() > 0.5


def nudged(weight: Any, factor: float) -> None:
    """Scale half of a weight, so that its direction changes."""
    with torch.no_grad():
        weight[: max(1, len(weight) // 2)] *= factor
