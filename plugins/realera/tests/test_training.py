"""Stage 2: the adapter learns, an interruption changes nothing, and the model is left alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import efface
from efface.testing import tiny_pipeline
from efface_realera import training
from efface_realera.adapter import Adapter
from efface_realera.aligning import schedule
from efface_realera.editing import edited, frozen
from efface_realera.latents import Trajectories
from efface_realera.miner import SnapMiner
from efface_realera.prompts import Prompts
from efface_realera.realera import RealEra

SHORT = {"steps": 4, "trajectories": 2, "times": 2, "denoising_steps": 2, "step_near": 1, "step_beyond": 1}
MINED: dict[str, Any] = {"bank": ("kitten", "bird", "house", "tree"), "s_lo": -0.38, "s_beyond": -0.38}


class Interrupted(Exception):
    pass


@pytest.fixture(scope="module")
def pipe() -> Any:
    return tiny_pipeline("sd1")


def erased(pipe: Any, folder: Path | None = None, progress: Any = lambda *_: None, **settings: Any) -> efface.Erasure:
    return efface.erase(
        pipe,
        "cat",
        anchor="dog",
        keep=["a red car"],
        method="realera",
        settings=MINED | SHORT | settings,
        folder=folder,
        progress=progress,
    )


def interrupting(at: int, what: str = "aligning noise") -> Callable[[int, int, str], None]:
    def progress(done: int, total: int, phase: str) -> None:
        if phase.startswith(what) and done == at:
            raise Interrupted

    return progress


def trainer_of(model: efface.Model) -> training.Trainer:
    settings = RealEra(batch_size=2)
    prompts = Prompts.of(model, efface.Request((efface.Concept("cat", "dog"),)))
    nothing = efface.LowRank(torch.zeros(16, 1), torch.zeros(1, 16))
    adapter = Adapter([], 1, torch.Generator(), model.device, torch.zeros(16, 0))
    miner = SnapMiner(prompts, (None,), (None,))
    return training.Trainer(model, prompts, miner, None, nothing, adapter, schedule(settings), efface.Run())


def state(pipe: Any) -> dict[str, Any]:
    """All that a fit must leave as it is."""
    digest = hashlib.sha256()
    modules = [module for part in (pipe.unet, pipe.text_encoder, pipe.vae) for module in part.modules()]
    for module in modules:
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            digest.update(tensor.detach().numpy().tobytes())
    return {
        "weights": digest.hexdigest(),
        "hooks": [(len(module._forward_hooks), len(module._forward_pre_hooks)) for module in modules],
        "modes": [module.training for module in modules],
        "gradients": [
            (p.requires_grad, p.grad is None) for module in modules for p in module.parameters(recurse=False)
        ],
        "random": torch.get_rng_state().tolist(),
        "scheduler": dict(pipe.scheduler.config),
    }


def test_the_loss_falls(pipe: Any) -> None:
    longer = {
        "steps": 40,
        "rate": 1e-2,
        "refreshes": 0,
        "trajectories": 1,
        "times": 1,
        "step_near": 0,
        "step_beyond": 0,
    }
    report = erased(pipe, **longer, step_keep=0, hard_targets=False, near_weight=0.0).header.report
    assert report["loss"]["last"] < 0.7 * report["loss"]["first"]


def test_what_is_held_in_the_loss_moves_less(pipe: Any) -> None:
    model = efface.Model(pipe)
    car, x = model.encode(["a red car"]), model.noise([5])

    def moved(weight: float) -> float:
        erasure = erased(pipe, steps=20, rate=1e-2, step_beyond=0, beyond_loss=weight, refreshes=0)
        with efface.Editor(pipe, erasure):
            after = model.predict(x, 500, car).detach()
        return float((after - model.predict(x, 500, car).detach()).norm())

    assert moved(100.0) < moved(0.0)


def test_every_step_draws_anew(pipe: Any, tmp_path: Path) -> None:
    erased(pipe, tmp_path, rate=1e-9, refreshes=0)  # nothing is learnt, so only what is drawn tells losses apart
    state = efface.Checkpoint(next(tmp_path.iterdir())).load()
    assert state is not None
    losses = torch.tensor(state.facts)
    assert len(losses) == 4
    assert float(losses.std() / losses.mean()) > 1e-3


@torch.no_grad()
def test_the_goal_is_the_anchor_for_what_moves_and_itself_for_what_stays(pipe: Any) -> None:
    model = efface.Model(pipe)
    cat, dog, x, t = model.encode(["cat", "kitten"]), model.encode(["dog"]), model.noise([1]), torch.tensor(500)
    still = model.encode(["bird", "house", "tree"])
    trainer = trainer_of(model)
    goals = trainer._goals(training.Batch(cat, dog, still, torch.ones(5)), x, t)
    anchor, itself = model.predict(x, t, dog), model.predict(x.expand(3, -1, -1, -1), t, still)
    torch.testing.assert_close(goals, torch.cat([anchor, anchor, itself]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("done", [1, 2, 3, 4])
def test_an_interrupted_fit_goes_on_to_the_same_bits(
    done: int, pipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: efface.Erasure
) -> None:
    monkeypatch.setattr(training, "SAVED_EVERY", 1 if done % 2 else 2)
    with pytest.raises(Interrupted):
        erased(pipe, tmp_path, interrupting(done))
    (file,) = tmp_path.iterdir()
    assert file.suffix == ".safetensors"
    steps: list[int] = []
    resumed = erased(pipe, tmp_path, lambda done, total, what: steps.append(done) if "aligning" in what else None)
    assert resumed == whole
    assert len(steps) == 4 - (done if done % 2 else done // 2 * 2)


@pytest.fixture(scope="module")
def whole(pipe: Any) -> efface.Erasure:
    return erased(pipe)


def test_another_run_in_the_same_folder_begins_anew(pipe: Any, tmp_path: Path, whole: efface.Erasure) -> None:
    other = erased(pipe, tmp_path, rank=2)
    assert erased(pipe, tmp_path) == whole
    assert len(list(tmp_path.iterdir())) == 2
    assert other != whole


def test_a_file_that_is_no_checkpoint_is_named(pipe: Any, tmp_path: Path) -> None:
    erased(pipe, tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(b"nonsense")
    with pytest.raises(efface.EffaceError, match=rf"{file.name}: not a checkpoint of this fit.*delete it"):
        erased(pipe, tmp_path)


def test_a_seed_decides(pipe: Any, whole: efface.Erasure) -> None:
    settings = MINED | SHORT
    other = efface.erase(pipe, "cat", anchor="dog", keep=["a red car"], method="realera", settings=settings, seed=1)
    name = next(name for name in whole.tensors if name.endswith(".to_k.down"))
    assert torch.equal(other.tensors["map"], whole.tensors["map"])
    assert not torch.equal(other.tensors[name], whole.tensors[name])


def test_a_fit_leaves_the_model_alone(pipe: Any) -> None:
    pipe.unet.up_blocks[1].train()
    pipe.unet.conv_in.requires_grad_(False)
    before = state(pipe)
    request = efface.Request((efface.Concept("cat", "dog"),), ("a red car",))
    RealEra(**(MINED | SHORT | {"steps": 1})).fit(efface.Model(pipe), request, efface.Run())  # type: ignore[arg-type]
    assert state(pipe) == before
    pipe.unet.eval().requires_grad_(True)


@pytest.mark.parametrize("progress", [interrupting(1), interrupting(0, "drawing latents")])
def test_so_does_one_that_fails(progress: Any, pipe: Any) -> None:
    before = state(pipe)
    with pytest.raises(Interrupted):
        erased(pipe, progress=progress)
    assert state(pipe) == before


def test_a_loss_that_is_no_number_is_an_error(pipe: Any) -> None:
    before = state(pipe)
    with pytest.raises(efface.EffaceError, match=r"The loss of step 1 is (nan|inf): lower rate"):
        erased(pipe, rate=1e30, refreshes=0)
    assert state(pipe) == before


def test_one_unet_answers_with_and_without_the_edit(pipe: Any) -> None:
    model = efface.Model(pipe)
    text, x = model.encode(["a cat", "a dog"]), model.noise([1, 2])
    points = model.points("cross_attn.k", "cross_attn.v")
    adapter = Adapter(points, 2, torch.Generator().manual_seed(0), model.device, torch.zeros(16, 0))
    nothing = efface.LowRank(torch.zeros(16, 1), torch.zeros(1, 16))
    with frozen(model), torch.no_grad():
        plain = model.predict(x, 500, text)
        with edited(model, nothing, adapter):
            assert torch.equal(model.predict(x, 500, text), plain)  # up is zero at the start
            for up in adapter.up.values():
                up.normal_(generator=torch.Generator().manual_seed(1))
            assert not torch.allclose(model.predict(x, 500, text), plain, atol=1e-3)
        assert torch.equal(model.predict(x, 500, text), plain)


def test_what_is_trained_is_what_will_be_attached(pipe: Any) -> None:
    model, erasure = efface.Model(pipe), erased(pipe, rate=1e-2)
    text, x = model.encode(["a cat", "a house"]), model.noise([1, 2])
    tensors = erasure.tensors
    change = efface.Dense(tensors["map"]) if "map" in tensors else efface.LowRank(tensors["up"], tensors["down"])
    points = model.points("cross_attn.k", "cross_attn.v")
    adapter = Adapter(points, 4, torch.Generator(), model.device, torch.zeros(16, 0))
    for part, held in (("up", adapter.up), ("down", adapter.down)):
        for name in held:
            held[name] = tensors[f"{name}.{part}"]
    with torch.no_grad():
        plain = model.predict(x, 500, text)
        with efface.Editor(pipe, erasure):
            attached = model.predict(x, 500, text)
        with edited(model, change, adapter):
            torch.testing.assert_close(model.predict(x, 500, text), attached, rtol=0, atol=1e-5)
    assert not torch.allclose(attached, plain, atol=1e-3)


def test_an_adapter_does_not_act_on_what_is_still() -> None:
    still = torch.randn(16, 3, generator=torch.Generator().manual_seed(0))
    (point,) = efface.points(tiny_pipeline("sd1"), "cross_attn.v")[:1]
    adapter = Adapter([point], 4, torch.Generator().manual_seed(1), torch.device("cpu"), still)
    adapter.up[point.name].data.normal_()
    assert float(adapter.change(point.name, still.T).detach().abs().max()) < 1e-5
    other = torch.randn(5, 16, generator=torch.Generator().manual_seed(2))
    change = adapter.change(point.name, other).detach()
    assert float(change.abs().max()) > 0.1
    torch.testing.assert_close(change, other @ adapter.delta(point.name).dense().T)


def test_the_bank_holds_the_unets_own_inputs_on_the_way(pipe: Any) -> None:
    model = efface.Model(pipe)
    targets, told = model.encode(["a cat", "a kitten"]), []
    made = Trajectories(count=3, times=2, steps=4, guidance=3.0, batch_size=2)
    bank = made.bank(model, targets, torch.Generator().manual_seed(0), lambda *at: told.append(at))
    assert len(bank) == 3 * 2
    assert sorted(bank.rows.tolist()) in ([0, 0, 0, 0, 1, 1], [0, 0, 1, 1, 1, 1])
    assert told[-1] == (3, 3)
    seeds = torch.Generator().manual_seed(0)
    for _ in range(3):
        torch.randperm(2, generator=seeds)
    noise = model.noise(torch.randint(2**31, (2,), generator=seeds).tolist())
    rows = bank.rows[:2].tolist()
    first = bank.timesteps[0]
    expected = model.denoise(
        efface.Encoded(
            prompts=tuple(targets.prompts[row] for row in rows),
            hidden=targets.hidden[rows],
            ids=targets.ids[rows],
            start=targets.start[rows],
            stop=targets.stop[rows],
            end=targets.end[rows],
        ),
        noise,
        steps=4,
        guidance=3.0,
        until=int(first) + 1,
    )
    torch.testing.assert_close(bank.latents[:2], expected)


def test_few_evaluations_of_the_unet_are_needed(pipe: Any) -> None:
    rows: list[int] = []
    mining: list[int] = []

    def count(module: nn.Module, args: tuple[Tensor, ...], output: Any) -> None:
        rows.append(len(args[0]))

    def note(done: int, total: int, what: str) -> None:
        if what == "drawing latents" and not mining:
            mining.append(sum(rows))

    handle = pipe.unet.register_forward_hook(count)
    try:
        settings = {"trajectories": 4, "times": 2, "denoising_steps": 5, "steps": 4, "refreshes": 1, "step_keep": 1}
        erased(pipe, progress=note, **settings)
    finally:
        handle.remove()
    led, directions = 2 * 4, 2 * (1 + 1) + 2 * (1 + len(MINED["bank"]))
    assert mining == [led + directions]
    banks, steps = 2 * 4 * 5 * 2, 4 * ((1 + 1 + 1) + (1 + 1 + 1 + 1))
    assert sum(rows) == mining[0] + banks + steps
