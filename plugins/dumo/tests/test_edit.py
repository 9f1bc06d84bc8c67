"""The branch on tiny pipelines: what it adds, when it does not run, what it adds up with, and how it comes off."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import FlopCounterMode

import efface
from efface.settings import build
from efface.testing import tiny_pipeline
from efface_dumo.attaching import sides
from efface_dumo.branch import ENCODER, Branch, fresh_tensors
from efface_dumo.conditions import Conditions
from efface_dumo.dumo import DuMo
from efface_dumo.halves import encoded
from efface_dumo.skeleton import base_tensors, config_of, empty_unet, fill, frozen_unet

Maker = Callable[..., efface.Erasure]
Edited = Callable[..., Tensor]


def conditions(pipe: Any, prompts: list[str]) -> Conditions:
    found = efface.Model(pipe).encode(prompts)
    return Conditions(found.hidden, found.pooled, pipe.vae_scale_factor)


def predict(
    pipe: Any, timestep: Any = 500, prompts: tuple[str, ...] = ("a cat", "a dog"), seed: int = 0, **extra: Any
) -> Tensor:
    """The U-Net's prediction for fixed latents, one row for each prompt."""
    generator = torch.Generator().manual_seed(seed)
    sample = torch.randn(len(prompts), 4, 8, 8, generator=generator).to(pipe.unet.dtype)
    given = conditions(pipe, list(prompts))
    with torch.no_grad():
        found: Tensor = pipe.unet(
            sample, timestep, encoder_hidden_states=given.text, added_cond_kwargs=given.added(sample), **extra
        ).sample
    return found


@pytest.fixture
def edited(attached: Any) -> Edited:
    """The same with erasures on the pipeline."""

    def run(pipe: Any, *erasures: efface.Erasure, **options: Any) -> Tensor:
        with attached(pipe, *erasures):
            return predict(pipe, **options)

    return run


def layers_of(pipe: Any) -> int:
    return len(efface.points(pipe, "skip", "mid"))


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Grows by the number of rows at every pass of a branch."""
    seen: list[int] = []
    plain = Branch.forward

    def counted(self: Branch, sample: Tensor, *rest: Any) -> Any:
        seen.append(len(sample))
        return plain(self, sample, *rest)

    monkeypatch.setattr(Branch, "forward", counted)
    return seen


# What it adds


@pytest.mark.parametrize("table", ["time_layer", "linear"])
def test_before_its_training_it_changes_nothing_bit_for_bit(
    pipe: Any, invented: Maker, edited: Edited, table: str
) -> None:
    assert torch.equal(edited(pipe, invented(pipe, size=0, table=table)), predict(pipe))


def test_so_does_the_blend_but_for_rounding(pipe: Any, invented: Maker, edited: Edited) -> None:
    """torch multiplies by weights that take gradients, as the pipeline's do, in another order than by frozen ones."""
    found = edited(pipe, invented(pipe, size=0, table="blend"))
    torch.testing.assert_close(found, predict(pipe), rtol=0, atol=1e-5)


def test_a_trained_one_changes_the_prediction(pipe: Any, invented: Maker, edited: Edited) -> None:
    assert (edited(pipe, invented(pipe)) - predict(pipe)).abs().max() > 1e-2


def test_before_its_training_its_features_are_those_of_the_frozen_encoder(pipe: Any) -> None:
    config, sample, given = config_of(pipe.unet), torch.randn(2, 4, 8, 8), conditions(pipe, ["a cat", "a dog"])
    branch = Branch(config, joined=False)
    fill(branch, fresh_tensors(pipe.unet, branch))
    frozen = frozen_unet(pipe.unet, config, torch.device("cpu"), torch.float32)
    own, base = (
        encoded(unet, sample, torch.tensor([7, 7]), given.text, given.added(sample))
        for unet in (branch.encoder, frozen)
    )
    assert len(own.layers) == layers_of(pipe)
    assert all(torch.equal(one, other) for one, other in zip(own.layers, base.layers, strict=True))


def outputs(pipe: Any, erasure: efface.Erasure, timestep: int = 500) -> tuple[Tensor, ...]:
    """What the branch adds to every layer in the pass of `predict`."""
    settings = build(DuMo, erasure.header.settings)
    (side,) = sides(settings, efface.Patch(pipe), efface.Fitted(erasure.fit, erasure.request))
    branch, modulation = side.at(pipe.unet.device, pipe.unet.dtype)
    sample = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    given, times = conditions(pipe, ["a cat", "a dog"]), torch.full((2,), timestep)
    with torch.no_grad():
        made = branch(sample, times, given.text, given.added(sample))
        weights = modulation(times, 1000, made.time)
    return tuple(layer * weights[:, place, None, None, None] for place, layer in enumerate(made.layers))


def test_it_adds_one_residual_to_every_skip_connection_and_to_the_mid_output(
    pipe: Any, invented: Maker, edited: Edited
) -> None:
    erasure = invented(pipe)
    skips, mid = (erasure.header.points[:-1], erasure.header.points[-1])
    assert skips == tuple(f"unet.skip.{layer}" for layer in range(9 if len(skips) == 9 else 12))
    assert mid == "unet.mid"
    *residuals, last = outputs(pipe, erasure)
    by_arguments = predict(pipe, down_block_additional_residuals=tuple(residuals), mid_block_additional_residual=last)
    assert torch.equal(edited(pipe, erasure), by_arguments)


def test_the_mid_output_can_be_left_out(sd1: Any, invented: Maker, edited: Edited) -> None:
    erasure = invented(sd1, mid=False)
    *residuals, last = outputs(sd1, erasure)
    assert last.abs().max() > 0
    without = predict(
        sd1, down_block_additional_residuals=tuple(residuals), mid_block_additional_residual=torch.zeros_like(last)
    )
    assert torch.equal(edited(sd1, erasure), without)


def test_it_reads_the_further_conditions_of_sdxl(pipes: dict[str, Any], invented: Maker) -> None:
    pipe = pipes["sdxl"]
    (side,) = sides(
        DuMo(), efface.Patch(pipe), efface.Fitted(invented(pipe).fit, efface.Request((efface.Concept("x"),)))
    )
    branch, _ = side.at(pipe.unet.device, pipe.unet.dtype)
    sample, given = torch.randn(2, 4, 8, 8), conditions(pipe, ["a cat", "a dog"])
    added = given.added(sample)
    assert added is not None
    other = added | {"time_ids": added["time_ids"] + 100}
    one, two = (
        branch(sample, torch.tensor([7, 7]), given.text, conditions_).layers[-1] for conditions_ in (added, other)
    )
    assert not torch.equal(one, two)


def test_the_further_conditions_of_sdxl_are_its_pipelines_for_a_whole_picture(pipes: dict[str, Any]) -> None:
    pipe, latents = pipes["sdxl"], torch.zeros(2, 4, 8, 12)
    size = (8 * pipe.vae_scale_factor, 12 * pipe.vae_scale_factor)
    width = pipe.text_encoder_2.config.projection_dim
    theirs = pipe._get_add_time_ids(size, (0, 0), size, torch.float32, text_encoder_projection_dim=width)
    ours = conditions(pipe, ["a cat", "a dog"]).added(latents)
    assert ours is not None
    assert torch.equal(ours["time_ids"], theirs.expand(2, -1))


# By timestep and layer


def table(pipe: Any, rows: int = 20) -> Tensor:
    return torch.rand(rows, layers_of(pipe), generator=torch.Generator().manual_seed(1)) + 0.5


def test_only_the_row_of_the_timestep_matters(sd1: Any, invented: Maker, edited: Edited) -> None:
    numbers, others = table(sd1), table(sd1)
    others[:10] = 3.0
    others[11:] = -1.0
    one, other = (invented(sd1, numbers=given) for given in (numbers, others))
    for timestep in (500, 549):
        assert torch.equal(edited(sd1, one, timestep=timestep), edited(sd1, other, timestep=timestep))
    assert not torch.equal(edited(sd1, one, timestep=499), edited(sd1, other, timestep=499))


def test_a_column_changes_only_what_reads_its_layer(sd1: Any, invented: Maker, edited: Edited) -> None:
    """Skip 0 is read by the last resnet of the last up block."""
    seen: list[Tensor] = []
    last = sd1.unet.up_blocks[-1].resnets
    handles = [resnet.register_forward_hook(lambda module, args, output: seen.append(output)) for resnet in last]
    numbers = table(sd1)
    try:
        edited(sd1, invented(sd1, numbers=numbers))
        numbers = numbers.clone()
        numbers[:, 0] += 1
        edited(sd1, invented(sd1, numbers=numbers))
    finally:
        for handle in handles:
            handle.remove()
    (*before, own), (*again, changed) = seen[:3], seen[3:]
    assert all(torch.equal(one, other) for one, other in zip(before, again, strict=True))
    assert not torch.equal(own, changed)


def test_every_sample_has_the_row_of_its_own_timestep(pipe: Any, invented: Maker, edited: Edited) -> None:
    erasure = invented(pipe, numbers=table(pipe))
    together = edited(pipe, erasure, timestep=torch.tensor([10, 990]))
    for row, timestep in enumerate((10, 990)):
        alone = edited(pipe, erasure, timestep=torch.tensor([timestep, timestep]))
        torch.testing.assert_close(together[row], alone[row], rtol=0, atol=1e-5)  # batched kernels round otherwise


@pytest.mark.parametrize("timestep", [500, 500.0, torch.tensor(500), torch.tensor([500]), torch.tensor([500.0, 500.0])])
def test_a_timestep_may_come_in_any_form(sd1: Any, invented: Maker, edited: Edited, timestep: Any) -> None:
    erasure = invented(sd1, numbers=table(sd1))
    assert torch.equal(edited(sd1, erasure, timestep=timestep), edited(sd1, erasure, timestep=torch.tensor([500, 500])))


def test_a_table_of_ones_is_no_table(sd1: Any, invented: Maker, edited: Edited) -> None:
    assert torch.equal(edited(sd1, invented(sd1)), edited(sd1, invented(sd1, table="none")))


# When it does not run


def test_it_runs_once_in_a_pass(pipe: Any, invented: Maker, edited: Edited, passes: list[int]) -> None:
    edited(pipe, invented(pipe))
    assert passes == [2]


@pytest.mark.parametrize("settings", [{"gate_factor": 0}, {"numbers": 0.0}])
def test_where_nothing_can_act_it_does_not_run(
    sd1: Any, invented: Maker, edited: Edited, passes: list[int], settings: dict[str, Any]
) -> None:
    if "numbers" in settings:
        settings = {"numbers": torch.zeros(20, layers_of(sd1))}
    assert torch.equal(edited(sd1, invented(sd1, **settings)), predict(sd1))
    assert passes == []


def test_it_does_not_run_at_timesteps_whose_row_is_zero(
    sd1: Any, invented: Maker, edited: Edited, passes: list[int]
) -> None:
    numbers = table(sd1)
    numbers[:10] = 0
    erasure = invented(sd1, numbers=numbers)
    assert torch.equal(edited(sd1, erasure, timestep=499), predict(sd1, timestep=499))
    assert passes == []
    edited(sd1, erasure, timestep=torch.tensor([499, 500]))
    assert passes == [2]


def test_a_scale_of_zero_and_a_disabled_erasure_are_off(sd1: Any, invented: Maker, passes: list[int]) -> None:
    plain = predict(sd1)
    with efface.Editor(sd1, invented(sd1)) as editor:
        label = editor.entries[0].label
        editor.scale(label, 0)
        assert torch.equal(predict(sd1), plain)
        editor.scale(label, 1)
        editor.disable(label)
        assert torch.equal(predict(sd1), plain)
    assert passes == []


# With others


def test_two_halves_are_as_good_as_one_whole(sd1: Any, invented: Maker, edited: Edited) -> None:
    whole = edited(sd1, invented(sd1))
    halves = edited(sd1, *(invented(sd1, gate_factor=0.5) for _ in range(2)))
    torch.testing.assert_close(halves, whole, rtol=0, atol=1e-6)


def test_the_order_of_concepts_does_not_matter(pipe: Any, invented: Maker, edited: Edited) -> None:
    one, two = invented(pipe, "cat", numbers=table(pipe)), invented(pipe, "dog", seed=5)
    assert not torch.allclose(edited(pipe, one), edited(pipe, one, two), atol=1e-3)
    torch.testing.assert_close(edited(pipe, one, two), edited(pipe, two, one), rtol=0, atol=1e-6)


def test_with_a_controlnet_the_residuals_add_up(sd1: Any, invented: Maker, edited: Edited) -> None:
    from diffusers import ControlNetModel

    torch.manual_seed(3)
    net = ControlNetModel.from_unet(sd1.unet, conditioning_embedding_out_channels=(4, 8)).eval()
    for joint in (*net.controlnet_down_blocks, net.controlnet_mid_block):
        torch.nn.init.normal_(joint.weight, std=0.1)
    sample, given = (
        torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)),
        conditions(sd1, ["a cat", "a dog"]),
    )
    with torch.no_grad():
        control = net(sample, 500, given.text, controlnet_cond=torch.rand(2, 3, 16, 16), return_dict=False)
    *residuals, last = outputs(sd1, invented(sd1))
    names = ("down_block_additional_residuals", "mid_block_additional_residual")
    both = (tuple(one + other for one, other in zip(control[0], residuals, strict=True)), control[1] + last)
    ours = edited(sd1, invented(sd1), **dict(zip(names, control, strict=True)))
    torch.testing.assert_close(ours, predict(sd1, **dict(zip(names, both, strict=True))), rtol=0, atol=1e-5)
    assert not torch.allclose(ours, edited(sd1, invented(sd1)), atol=1e-3)


def test_with_a_t2i_adapter_too(sd1: Any, invented: Maker, edited: Edited) -> None:
    shapes = [(2, 8, 8, 8), (2, 16, 4, 4), (2, 16, 2, 2), (2, 16, 1, 1)]
    hints = [torch.randn(shape, generator=torch.Generator().manual_seed(9)) for shape in shapes]
    *residuals, last = outputs(sd1, invented(sd1))
    both = {"down_block_additional_residuals": tuple(residuals), "mid_block_additional_residual": last}
    ours = edited(sd1, invented(sd1), down_intrablock_additional_residuals=list(hints))
    theirs = predict(sd1, down_intrablock_additional_residuals=list(hints), **both)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def with_lora(pipe: Any) -> Any:
    from peft import LoraConfig

    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_k", "to_v"], init_lora_weights=False))
    return pipe


def test_under_a_lora_it_is_built_from_the_base(invented: Maker, edited: Edited) -> None:
    base, adapted = tiny_pipeline("sd1"), with_lora(tiny_pipeline("sd1"))
    plain, under = (fresh_tensors(pipe.unet, Branch(config_of(pipe.unet))) for pipe in (base, adapted))
    assert plain.keys() == under.keys()
    assert all(torch.equal(plain[name], under[name]) for name in plain)
    unet = frozen_unet(adapted.unet, config_of(adapted.unet), torch.device("cpu"), torch.float32)
    sample, text = torch.randn(1, 4, 8, 8), torch.randn(1, 16, 16)
    with torch.no_grad():
        assert torch.equal(unet(sample, 5, text).sample, base.unet(sample, 5, text).sample)
        assert not torch.equal(adapted.unet(sample, 5, text).sample, base.unet(sample, 5, text).sample)
    *residuals, last = outputs(adapted, invented(base))
    by_arguments = predict(
        adapted, down_block_additional_residuals=tuple(residuals), mid_block_additional_residual=last
    )
    assert torch.equal(edited(adapted, invented(base)), by_arguments)


def test_adapters_around_adapters_are_looked_through() -> None:
    layer, adapted = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    adapted.base_layer = torch.nn.Linear(2, 2)
    adapted.base_layer.base_layer = layer
    found = base_tensors(torch.nn.ModuleDict({"layer": adapted}), ["layer.weight"])
    assert found["layer.weight"].data_ptr() == layer.weight.data_ptr()


def test_the_plan_counts_the_operations_of_a_pass(pipe: Any, invented: Maker) -> None:
    erasure, size = invented(pipe), pipe.unet.config.sample_size
    given, sample = conditions(pipe, ["a cat"]), torch.randn(1, 4, size, size)
    inputs = (sample, torch.tensor([7]), given.text, given.added(sample))
    on_meta = tree_map(lambda part: part.to("meta") if isinstance(part, Tensor) else part, inputs)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        Branch(config_of(pipe.unet))(*on_meta)
    with efface.Editor(pipe, erasure) as editor:
        (planned,) = editor.plan().erasures
    assert planned.flops == counter.get_total_flops()


# Off again


def test_it_comes_off_bit_for_bit(pipe: Any, invented: Maker) -> None:
    def hooks() -> int:
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in pipe.unet.modules())

    plain, before, state = predict(pipe), hooks(), {name: t.clone() for name, t in pipe.unet.state_dict().items()}
    erasure = invented(pipe)
    with efface.Editor(pipe, erasure) as editor:
        first = predict(pipe)
        editor.detach()
        assert torch.equal(predict(pipe), plain)
        editor.attach(erasure)
        assert torch.equal(predict(pipe), first)
    assert torch.equal(predict(pipe), plain)
    assert hooks() == before
    assert pipe.unet.state_dict().keys() == state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in pipe.unet.state_dict().items())


def test_an_exception_in_a_pass_leaves_nothing_behind(sd1: Any, invented: Maker) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("in the middle")

    plain, erasure = predict(sd1), invented(sd1)
    with efface.Editor(sd1, erasure):
        whole = predict(sd1)
        handle = sd1.unet.up_blocks[1].register_forward_hook(fail)
        with pytest.raises(RuntimeError, match="in the middle"):
            predict(sd1)
        handle.remove()
        assert torch.equal(predict(sd1), whole)
    assert torch.equal(predict(sd1), plain)


def test_attaching_draws_no_random_number(sd1: Any, invented: Maker) -> None:
    erasure, before = invented(sd1), torch.get_rng_state()
    with efface.Editor(sd1, erasure):
        predict(sd1)
    assert torch.equal(torch.get_rng_state(), before)


# Pipelines


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_precision_pipeline_keeps_its_precision(
    invented: Maker, edited: Edited, sd1: Any, dtype: torch.dtype
) -> None:
    half = tiny_pipeline("sd1", dtype=dtype)
    found = edited(half, invented(sd1, numbers=table(sd1)), timestep=501)
    assert found.dtype == dtype
    exact = edited(sd1, invented(sd1, numbers=table(sd1)), timestep=501)
    assert (found - exact).abs().max() < 0.05 * exact.abs().max()


def test_guided_pictures_of_another_size_come_out(pipe: Any, invented: Maker, attached: Any) -> None:
    with attached(pipe, invented(pipe, gate="both")):
        image = pipe("a cat", num_inference_steps=2, height=32, width=48, output_type="latent").images
    assert image.shape == (1, 4, 16, 24)
    assert image.isfinite().all()


@pytest.mark.parametrize("size", [(8, 8), (6, 10), (7, 9)])
def test_the_two_halves_are_the_whole_u_net(pipe: Any, size: tuple[int, int]) -> None:
    from efface_dumo.halves import decoded

    sample, given = torch.randn(2, 4, *size), conditions(pipe, ["a cat", "a dog"])
    times, added = torch.tensor([3, 700]), given.added(sample)
    with torch.no_grad():
        whole = pipe.unet(sample, times, encoder_hidden_states=given.text, added_cond_kwargs=added).sample
        assert torch.equal(decoded(pipe.unet, encoded(pipe.unet, sample, times, given.text, added)), whole)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"in_channels": 9}, "takes 9 channels in and gives 4; inpainting"),
        ({"time_cond_proj_dim": 32}, "its time_cond_proj_dim is 32"),
        ({"class_embed_type": "timestep"}, "its class_embed_type is 'timestep'"),
    ],
)
def test_u_nets_that_it_cannot_follow_are_refused(sd1: Any, changes: dict[str, Any], message: str) -> None:
    unet = empty_unet({**config_of(sd1.unet), **changes})
    with pytest.raises(efface.EffaceError, match=message):
        config_of(unet)


def test_the_branch_of_sd_14_has_as_many_numbers_as_the_published_one() -> None:
    branch = Branch(dict(SD14))
    assert sum(tensor.numel() for tensor in branch.state_dict().values()) == 360_192_640
    assert (
        sum(tensor.numel() for name, tensor in branch.state_dict().items() if name.startswith(ENCODER)) == 348_712_960
    )
    assert len(branch.joints) == 13


def test_the_branch_of_sdxl_has_nine_skip_connections(pipes: dict[str, Any]) -> None:
    assert len(Branch(config_of(pipes["sdxl"].unet)).joints) == 10


SD14 = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda tensors: tensors.pop("0.branch.joints.3.bias"), "'joints.3.bias' is missing"),
        (lambda tensors: tensors.update({"0.branch.more": torch.zeros(1)}), "needs none of that name"),
        (lambda tensors: tensors.update({"0.branch.joints.3.bias": torch.zeros(3)}), r"is \(3,\); this U-Net needs"),
        (lambda tensors: tensors.update({"0.modulation.table": torch.zeros(2, 13)}), "its settings need"),
        (lambda tensors: tensors.pop("0.names"), "no erasure by DuMo"),
    ],
)
def test_numbers_that_do_not_fit_are_refused_before_anything_changes(
    sd1: Any, invented: Maker, spoil: Callable[[dict[str, Tensor]], Any], message: str
) -> None:
    fit = invented(sd1).fit
    spoil(fit.tensors)
    patch = efface.Patch(sd1)
    with pytest.raises(efface.BadArtifact, match=message):
        DuMo().apply(patch, [efface.Fitted(fit, efface.Request((efface.Concept("cat"),)))])
    assert patch.edits == []
