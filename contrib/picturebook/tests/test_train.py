"""Training can be interrupted anywhere and ends with the same bits."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from efface_picturebook import autoencoder, checkpoint, denoiser, examples, loop, networks, stages, train
from efface_picturebook.schedule import Plan


@pytest.fixture
def job(tmp_path: Path) -> stages.Job:
    return stages.Job(
        out=tmp_path, seed=3, pictures=48, batch=2, rate=1e-3, steps=2, autoencoder_steps=2,
        accelerator=Accelerator(cpu=True),
    )  # fmt: skip


def weights(folder: Path) -> list[Tensor]:
    state = checkpoint.load(folder / loop.LATEST)
    return [*state["module"].values(), *state["average"]]


def assert_same(first: Path, second: Path) -> None:
    for one, other in zip(weights(first), weights(second), strict=True):
        assert torch.equal(one, other)


def test_an_interrupted_run_ends_with_the_same_bits(job: stages.Job, tmp_path: Path) -> None:
    pieces = replace(job, out=tmp_path / "pieces")
    whole = replace(job, out=tmp_path / "whole")
    for stage in (stages.train_autoencoder, stages.train_denoiser):
        stage(pieces, stop_at=1)
        stage(pieces)
        stage(whole)
    assert_same(tmp_path / "pieces/autoencoder", tmp_path / "whole/autoencoder")
    assert_same(tmp_path / "pieces/unet", tmp_path / "whole/unet")


def linear_run(folder: Path, steps: int, stop_at: int | None = None) -> loop.Run:
    torch.manual_seed(0)
    run = loop.Run.start(nn.Linear(3, 1), 1e-2)

    def loss_at(step: int) -> Tensor:
        x = torch.randn(4, 3, generator=loop.generator(0, step))
        return (run.module(x) - x.sum(1, keepdim=True)).square().mean()

    loop.train(run, Plan(steps, 1e-2, warm_up=2), folder, loss_at, Accelerator(cpu=True), stop_at=stop_at)
    return run


def test_a_finished_run_can_be_extended_from_before_its_decay(tmp_path: Path) -> None:
    linear_run(tmp_path / "extended", steps=20)
    extended = linear_run(tmp_path / "extended", steps=40)
    whole = linear_run(tmp_path / "whole", steps=40)
    assert extended.step == whole.step == 40
    assert_same(tmp_path / "extended", tmp_path / "whole")


def test_a_plan_can_be_changed_before_its_decay(tmp_path: Path) -> None:
    linear_run(tmp_path / "changed", steps=20, stop_at=5)
    linear_run(tmp_path / "changed", steps=40)
    linear_run(tmp_path / "whole", steps=40)
    assert_same(tmp_path / "changed", tmp_path / "whole")


def test_a_finished_run_does_nothing_more(tmp_path: Path) -> None:
    linear_run(tmp_path, steps=5)
    before = weights(tmp_path)
    linear_run(tmp_path, steps=5)
    assert all(torch.equal(one, other) for one, other in zip(before, weights(tmp_path), strict=True))


def test_an_interrupted_write_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    path = tmp_path / "latest.pt"
    checkpoint.save(path, {"step": 1})
    with pytest.raises(Exception, match="pickle"):
        checkpoint.save(path, {"step": lambda: 2})
    assert checkpoint.load(path) == {"step": 1}


def test_every_example_comes_once_per_epoch() -> None:
    seen = torch.cat([loop.batch_indices(0, step, count=12, batch=4) for step in range(3)])
    assert sorted(seen.tolist()) == list(range(12))


def test_a_batch_larger_than_the_examples_is_refused() -> None:
    with pytest.raises(ValueError, match="there are 3"):
        loop.batch_indices(0, 0, count=3, batch=4)


def test_crops_start_on_the_latent_grid() -> None:
    rows = torch.arange(64).view(1, 1, 64, 1).expand(5, 3, 64, 64).to(torch.uint8)
    cut = (autoencoder.crops(rows, seed=0, step=0, batch=5) + 1) * 127.5
    assert cut.shape == (5, 3, 32, 32)
    assert (cut[:, 0, 0, 0].round() % 4 == 0).all()


def test_tidy_latents_cost_nothing() -> None:
    torch.manual_seed(0)
    latents = torch.randn(64, 4, 32, 32)
    assert autoencoder.untidiness(latents) < 1e-3
    assert autoencoder.untidiness(latents + 1) > 0.9


def test_min_snr_weights_cap_the_easy_timesteps_only() -> None:
    alphas = torch.tensor([0.99, 0.5, 0.01])
    weight = denoiser.snr_weight(alphas, torch.arange(3))
    assert torch.allclose(weight, torch.tensor([5 / 99, 1.0, 1.0]))


def test_timesteps_cover_the_schedule_evenly() -> None:
    timesteps = denoiser.stratified_timesteps(10, 1000, loop.generator(0, 0))
    assert (timesteps // 100).tolist() == list(range(10))


def test_diffusion_mixes_picture_and_noise_by_the_schedule() -> None:
    x, noise = torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1), 10.0)
    mixed = denoiser.diffuse(x, noise, torch.tensor([0.36]), torch.tensor([0]))
    assert mixed.item() == pytest.approx(0.6 * 2 + 0.8 * 10)


def test_the_unet_has_stable_diffusions_blocks() -> None:
    unet = networks.unet()
    cross = [name for name, _ in unet.named_modules() if name.endswith("attn2")]
    skips = 1 + sum(len(b.resnets) + len(b.downsamplers or ()) for b in unet.down_blocks)
    assert (len(cross), skips) == (16, 12)
    assert 8e6 < sum(p.numel() for p in unet.parameters()) < 10e6


def test_captions_become_padded_ids() -> None:
    from efface_picturebook import tokenizer

    ids = examples.caption_ids(tokenizer.build(), seed=0, count=3)
    assert ids.shape == (3, examples.CAPTIONS, 32)


def test_the_command_line_refuses_an_unknown_stage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train.main(["--stage", "nothing"])
    assert "autoencoder" in capsys.readouterr().err
