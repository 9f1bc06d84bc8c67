"""The two stages on a tiny pipeline: what learns, what stays, what falls, and that a break changes nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch import Tensor

import efface
from efface.settings import build
from efface.testing import tiny_pipeline
from efface_dumo.acceleration import accelerated
from efface_dumo.branch import Branch, fresh_tensors
from efface_dumo.dumo import DuMo
from efface_dumo.fitting import Fitting
from efface_dumo.skeleton import config_of
from efface_dumo.stage_one import ramped, train_branch, trained_parameters
from efface_dumo.stage_two import Cache, train_modulation
from efface_dumo.training import Banks, Training, rate_at, thinned

SMALL: dict[str, object] = {
    "steps": 3,
    "batch": 2,
    "retained": 1,
    "trajectories": 2,
    "sample_steps": 2,
    "table_steps": 2,
    "table_cache": 4,
    "refresh_every": 2,
    "refresh": 1,
    "checkpoint_every": 1,
    "store": "float32",
}
SHORT: dict[str, object] = {"trajectories": 1, "batch": 1, "table_cache": 1}
NOWHERE = efface.Checkpoint(None)


@pytest.fixture(scope="module")
def pipe() -> Any:
    """A tiny pipeline whose prediction depends on the text, as a trained one's does."""
    pipe = tiny_pipeline("sd1")
    for name, module in pipe.unet.named_modules():
        if name.endswith(("attn2.to_v", "attn2.to_out.0")):
            module.weight.data *= 12
    return pipe


@contextmanager
def started(pipe: Any, keep: Sequence[str] = ("fish",), **settings: object) -> Iterator[Training]:
    """The training of cat becoming dog, before its first step."""
    method = build(DuMo, {**SMALL, **settings})
    request = efface.Request((efface.Concept("cat", "dog"),), keep=tuple(keep), templates=("{}", "a {}"))
    model = efface.Model(pipe)
    with accelerated(model.device, method.precision) as accelerator:
        yield Fitting.of(method, model, request, efface.Run(), accelerator).training(0)


def erased(pipe: Any, concept: Any = "cat", **options: Any) -> efface.Erasure:
    settings = {**SMALL, **options.pop("settings", {})}
    return efface.erase(
        pipe, concept, method="dumo", settings=settings, **{"anchor": "dog", "keep": ["fish"], **options}
    )


def grown(module: torch.nn.Module) -> float:
    """The largest gradient of a module's parameters, 0 where there is none."""
    return max((float(weight.grad.abs().max()) for weight in module.parameters() if weight.grad is not None), default=0)


# What it learns


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_at_the_start_nothing_is_lost_and_all_is_to_be_erased(pipe: Any, eta: float) -> None:
    with started(pipe, eta=eta) as training:
        given = training.lesson(training.banks(2, "bank"), 4, "some")
        erase, retain = given.losses(training.predicted(given))
        part = slice(0, 4)
        concept = training.student.plain(given.sample[part], given.timestep[part], given.conditions[torch.arange(4)])
    assert retain == 0
    anchor = (given.target[part] + eta * concept) / (1 + eta)
    assert float(erase) == pytest.approx((1 + eta) ** 2 * float((concept - anchor).square().mean()), rel=1e-5)
    assert erase > 1e-3


def test_the_first_step_moves_the_joints_alone_and_the_second_the_encoder_too(pipe: Any) -> None:
    with started(pipe) as training:
        branch = training.student.branch
        optimizer = torch.optim.Adam(trained_parameters(branch, ()), lr=1e-3)
        given = training.lesson(training.banks(2, "bank"), 2, "some")
        for first in (True, False):
            optimizer.zero_grad()
            sum(given.losses(training.predicted(given))).backward()
            assert (grown(branch.encoder) == 0) == first
            assert grown(branch.joints) > 0
            optimizer.step()
        assert grown(training.student.unet) == 0


def test_gradients_through_our_halves_are_those_through_the_u_net(pipe: Any) -> None:
    with started(pipe) as training:
        given = training.lesson(training.banks(2, "bank"), 2, "some", retain=False)
        added = [torch.zeros_like(layer, requires_grad=True) for layer in given.features.layers]
        joined = [layer + more for layer, more in zip(given.features.layers, added, strict=True)]
        ours = training.student.decoded(given.features.with_layers(joined))
        theirs = pipe.unet(
            given.sample,
            given.timestep,
            encoder_hidden_states=given.conditions.text,
            down_block_additional_residuals=tuple(added[:-1]),
            mid_block_additional_residual=added[-1],
        ).sample
    assert torch.equal(ours, theirs)
    for one, other in zip(*(torch.autograd.grad(way.square().sum(), added) for way in (ours, theirs)), strict=True):
        assert torch.equal(one, other)


def test_stage_1_erases_on_latents_it_never_saw(pipe: Any) -> None:
    settings = {"steps": 15, "rate": 1e-2, "retain_weight": 0, "refresh_every": 0}
    with started(pipe, **settings) as training:
        held_out = training.banks(2, "held out")
        before = training.measured(held_out)
        train_branch(training, NOWHERE)
        after = training.measured(held_out)
    assert after["erase"] < 0.6 * before["erase"]


def test_what_is_retained_changes_less(pipe: Any) -> None:
    def lost(weight: float) -> float:
        with started(pipe, steps=4, rate=1e-2, retain_weight=weight, ramp=0, refresh_every=0) as training:
            held_out = training.banks(2, "held out")
            train_branch(training, NOWHERE)
            return training.measured(held_out)["retain"]

    assert lost(5.0) < 0.8 * lost(0.0)


def test_stage_2_starts_where_stage_1_ended_and_goes_on_falling(pipe: Any) -> None:
    settings = {"steps": 6, "rate": 1e-2, "table_steps": 16, "table_cache": 8, "table_rate": 5e-2, "jitter": False}
    settings |= {"table_retain_weight": 1}  # so that the sum of both losses is what falls
    with started(pipe, **settings) as training:
        student, held_out = training.student, training.banks(2, "held out")
        banks, _ = train_branch(training, NOWHERE)
        trained = {name: tensor.clone() for name, tensor in student.branch.state_dict().items()}
        cache = Cache.of(training, banks)
        with torch.no_grad():
            stored = student.decoded(student.changed(cache.lesson.features, cache.outputs, cache.lesson.timestep))
            torch.testing.assert_close(stored, training.predicted(cache.lesson), rtol=0, atol=1e-5)
        before = training.measured(held_out)
        train_modulation(training, banks, NOWHERE)
        after = training.measured(held_out)
    assert after["erase"] + after["retain"] < before["erase"] + before["retain"]
    assert all(torch.equal(tensor, trained[name]) for name, tensor in student.branch.state_dict().items())
    visited = student.modulation.bin_of(banks.erased.timesteps, 1000).tolist()
    for row, values in enumerate(student.modulation.table):
        assert bool((values == 1).all()) == (row not in visited)


def test_a_table_can_be_pulled_to_one_and_kept_from_going_below_zero(pipe: Any) -> None:
    settings = {"steps": 1, "table_steps": 6, "table_rate": 0.5, "schedule": "constant"}

    def table(training: Training, banks: Banks, **more: Any) -> Tensor:
        training.student.modulation.table.data.fill_(1)
        train_modulation(replace(training, settings=replace(training.settings, **more)), banks, NOWHERE)
        return training.student.modulation.table.detach().clone()

    with started(pipe, **settings) as training:
        banks, _ = train_branch(training, NOWHERE)
        free, pulled, positive = (
            table(training, banks, **more) for more in ({}, {"table_pull": 100.0}, {"table_positive": True})
        )
    assert free.min() < 0 == positive.min()
    assert (pulled - 1).abs().mean() < 0.5 * (free - 1).abs().mean()


def test_batches_cover_the_whole_schedule(pipe: Any) -> None:
    with started(pipe, sample_steps=4) as training:
        given = training.lesson(training.banks(2, "bank"), 8, "some")
    quarters = given.timestep[:8] // 250
    assert sorted(quarters.tolist()) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert len(set(given.timestep.tolist())) > 8


def test_some_retained_rows_have_the_empty_prompt_or_another_one_on_others_latents(pipe: Any) -> None:
    with started(pipe, keep=("fish", "bird"), crossed=1.0, jitter=False, retained=3) as training:
        banks = training.banks(1, "bank")
        given = training.lesson(banks, 4, "some")
        prompts = training.prompts
    without, other = given.conditions.text[4:12], given.conditions.text[12:]
    assert torch.equal(without, prompts.unconditional.text.expand(8, -1, -1))
    assert len(given.sample) == 16
    for rows, bank in ((given.sample[4:8], banks.erased), (given.sample[8:], banks.kept)):
        assert all(any(torch.equal(row, one) for one in bank.inputs.flatten(0, 1)) for row in rows)
    asked = [[torch.equal(row, one) for one in prompts.kept.text].index(True) for row in other]
    assert len(set(asked)) > 1


def test_the_others_are_of_their_own_trajectory(pipe: Any) -> None:
    with started(pipe, crossed=0.0, jitter=False) as training:
        banks = training.banks(2, "bank")
        given = training.lesson(banks, 2, "some")
    for row, text in zip(given.sample[2:], given.conditions.text[2:], strict=True):
        (place,) = (n for n, way in enumerate(banks.kept.inputs) if any(torch.equal(row, one) for one in way))
        assert torch.equal(text, training.prompts.kept.text[banks.kept.prompts[place]])


def test_fresh_latents_come_from_the_edited_model(pipe: Any) -> None:
    with started(pipe, rate=1e-2) as training:
        first = training.banks(2, "bank").erased.inputs.clone()
        banks, _ = train_branch(training, NOWHERE)
    assert not torch.equal(banks.erased.inputs[0], first[0])
    assert torch.equal(banks.erased.inputs[1], first[1])


# What stays and what comes out


def test_a_fit_leaves_accelerate_as_it_was(pipe: Any) -> None:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    assert not AcceleratorState._shared_state
    with started(pipe):
        assert AcceleratorState._shared_state
    assert not AcceleratorState._shared_state
    Accelerator(cpu=True, mixed_precision="bf16")
    try:
        with pytest.raises(efface.EffaceError, match="uses accelerate with other settings"), started(pipe):
            pass
        assert AcceleratorState().mixed_precision == "bf16"
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def told() -> list[str]:
    """What the progress of the whole fit said."""
    return []


@pytest.fixture(scope="module")
def whole(pipe: Any, told: list[str]) -> efface.Erasure:
    """A fit that nothing disturbed."""
    return erased(pipe, progress=lambda done, total, what: told.append(what))


class Stop(Exception):
    """Somebody presses Ctrl-C."""


def stopping(stage: str, at: int) -> Any:
    def progress(done: int, total: int, what: str) -> None:
        if f": {stage}" in what and done == at:
            raise Stop

    return progress


def test_a_fit_that_is_interrupted_in_both_stages_goes_on_to_the_same_bits(
    pipe: Any, whole: efface.Erasure, tmp_path: Path
) -> None:
    for stage, at in (("branch", 3), ("table", 2)):
        with pytest.raises(Stop):
            erased(pipe, progress=stopping(stage, at), folder=tmp_path)
    seen: list[str] = []
    assert erased(pipe, folder=tmp_path, progress=lambda done, total, what: seen.append(what)) == whole
    assert not [what for what in seen if ": branch" in what or "bank" in what]
    assert len([what for what in seen if ": table" in what]) == 1


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"settings": {"gate": "both", "store": "low-rank", "checkpoint_every": 7}}, {"branch", "table"}),
        ({"settings": {"table": "time", "table_rate": 1.0, "bins": 5}}, {"branch"}),
        ({"settings": {"table": "blend"}}, set()),
        ({"settings": {"rate": 3e-3}}, set()),
        ({"seed": 1}, set()),
        ({"keep": ("bird",)}, set()),
    ],
)
def test_a_checkpoint_serves_the_training_that_it_is_of_and_no_other(
    pipe: Any, tmp_path: Path, change: dict[str, Any], same: set[str]
) -> None:
    def files(settings: Mapping[str, object] = MappingProxyType({}), seed: int = 0, keep: Any = ("fish",)) -> set[Any]:
        method = build(DuMo, {**SMALL, **settings})
        request = efface.Request((efface.Concept("cat", "dog"),), keep)
        with accelerated(torch.device("cpu"), "no") as accelerator:
            fitting = Fitting.of(method, efface.Model(pipe), request, efface.Run(seed, folder=tmp_path), accelerator)
        return {fitting.checkpoint(stage, 0).path for stage in ("branch", "table")}

    shared = files() & files(**change)
    assert {path.name.split("-")[1] for path in shared} == same


def test_progress_says_both_losses(whole: efface.Erasure, told: list[str]) -> None:
    assert told[0] == "cat: latents, held out erased"
    for stage in ("branch", "table"):
        assert any(re.match(rf"cat: {stage}; erase \d.*, retain \d", what) for what in told)


def test_the_report_has_what_a_page_can_draw(whole: efface.Erasure) -> None:
    report = whole.header.report["cat"]
    assert [len(report["losses"][stage]["erase"]) for stage in ("branch", "table")] == [3, 2]
    assert (len(report["table"]), len(report["table"][0])) == (20, 13)
    assert list(report["held out"]) == ["before", "branch", "table", "stored"]
    assert report["held out"]["before"]["retain"] == 0
    assert report["held out"]["stored"] == report["held out"]["table"]
    assert report["storage"]["error"] == 0
    assert set(report["evaluations"]) == {"encoder", "decoder", "branch"}


def test_several_concepts_have_a_branch_each(pipe: Any, whole: efface.Erasure, attached: Any) -> None:
    both = erased(pipe, [efface.Concept("cat", "dog"), efface.Concept("car", "house")], anchor=None)
    assert list(both.header.report) == ["cat", "car"]
    for name, tensor in whole.tensors.items():
        other = both.tensors[name.replace("0.", "1.", 1)]
        assert torch.equal(both.tensors[name], tensor)
        assert not (name.endswith("joints.0.weight") and torch.equal(other, tensor))
    with attached(pipe, whole):
        alone = latents(pipe)
    with attached(pipe, both):
        assert not torch.equal(latents(pipe), alone)


def latents(pipe: Any) -> Tensor:
    found: Tensor = pipe(
        "a cat", num_inference_steps=1, generator=torch.Generator().manual_seed(0), output_type="latent"
    ).images
    return found


@pytest.mark.parametrize("table", ["time", "layer", "linear", "blend", "none"])
def test_every_kind_of_table_can_be_fitted_and_attached(pipe: Any, attached: Any, table: str) -> None:
    settings = {"table": table, "steps": 1, "table_steps": 1, "rate": 1e-2, "layer_groups": (0,) * 6 + (1,) * 7}
    erasure = erased(pipe, settings={**SHORT, **settings})
    assert any(".modulation." in name for name in erasure.tensors) == (table != "none")
    report = erasure.header.report["cat"]
    assert ("table" in report["losses"]) == (table != "none")
    assert (report["table"] is None) == (table in ("linear", "blend", "none"))
    with attached(pipe, erasure):
        edited = latents(pipe)
    assert not torch.equal(latents(pipe), edited)


def test_in_mixed_precision_weights_stay_in_full(pipe: Any) -> None:
    with started(pipe, precision="bf16", steps=2, rate=1e-2, refresh_every=0) as training:
        _, losses = train_branch(training, NOWHERE)
    assert losses.erase[0] > 0
    assert {weight.dtype for weight in training.student.branch.parameters()} == {torch.float32}
    assert training.student.branch.joints[0].weight.abs().max() > 0


def test_frozen_parts_stay_those_of_the_base(pipe: Any) -> None:
    erasure = erased(pipe, settings={"freeze": ("time_embedding", "down_blocks.0"), "rate": 1e-2, "table": "none"})
    base = fresh_tensors(pipe.unet, Branch(config_of(pipe.unet)))
    for name, tensor in base.items():
        same = torch.equal(erasure.tensors[f"0.branch.{name}"], tensor)
        assert same or not name.startswith(("encoder.time_embedding.", "encoder.down_blocks.0."))
    assert not torch.equal(erasure.tensors["0.branch.encoder.conv_in.weight"], base["encoder.conv_in.weight"])


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"freeze": ("decoder",)}, efface.BadSetting, "freeze: No part 'decoder'; it has: .*conv_in"),
        ({"layer_groups": (0, 1)}, efface.BadSetting, "each of this U-Net's 13 layers"),
        ({"layer_groups": (0,) * 12 + (2,)}, efface.BadSetting, "without gaps"),
        ({"sample_steps": 1001}, efface.EffaceError, "has 1000 timesteps"),
        ({"precision": "fp16"}, efface.BadSetting, "fp16 needs a GPU"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_is_computed(
    pipe: Any, settings: dict[str, object], error: type[Exception], message: str
) -> None:
    seen: list[str] = []
    with pytest.raises(error, match=message):
        erased(pipe, settings=settings, progress=lambda done, total, what: seen.append(what))
    assert seen == []


def test_rates_weights_and_curves() -> None:
    assert [ramped(step, 4.0) for step in (0, 2, 4, 9)] == pytest.approx([0.01, 0.1, 1, 1])
    assert ramped(0, 0.0) == 1
    assert [rate_at(step, 4, 2.0, "cosine") for step in (0, 2)] == [2.0, 1.0]
    assert rate_at(3, 4, 2.0, "constant") == 2.0
    assert thinned([float(step) for step in range(250)])[:2] == [1.0, 4.0]
    assert len(thinned([1.0] * 250)) <= 100
    assert thinned([0.123456]) == [0.1235]
