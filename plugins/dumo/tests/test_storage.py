"""How a branch is kept: in half precision, or as thin differences from the base encoder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import efface
from efface.testing import tiny_pipeline
from efface_dumo.branch import Branch, fresh_tensors
from efface_dumo.published import export, imported
from efface_dumo.skeleton import config_of
from efface_dumo.storage import Stored, kept, thin

Maker = Callable[..., efface.Erasure]
CPU = torch.device("cpu")


@pytest.fixture
def branch(sd1: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A trained branch whose encoder differs from the base by matrices of rank two, and the base encoder."""
    fresh = fresh_tensors(sd1.unet, Branch(config_of(sd1.unet)))
    base = {name: tensor for name, tensor in fresh.items() if name.startswith("encoder.")}
    generator = torch.Generator().manual_seed(0)
    trained = {}
    for name, tensor in fresh.items():
        flat = tensor.flatten(1) if tensor.ndim > 1 else tensor[:, None]
        up, down = (torch.randn(size, generator=generator) for size in ((flat.shape[0], 2), (2, flat.shape[1])))
        trained[name] = tensor + 0.05 * (up @ down).view_as(tensor)
    return trained, base


def error(stored: Stored, trained: dict[str, Tensor], base: dict[str, Tensor]) -> float:
    """The largest change by storing, relative to the change by training."""
    found = stored.tensors(CPU, torch.float32)
    assert found.keys() == trained.keys()
    lost = sum(float((found[name] - trained[name]).square().sum()) for name in trained)
    moved = sum(float((trained[name] - base.get(name, torch.zeros(()))).square().sum()) for name in trained)
    return (lost / moved) ** 0.5


def size(tensors: dict[str, Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def test_full_precision_keeps_every_bit_and_half_precision_half_the_bytes(branch: Any) -> None:
    trained, base = branch
    full, half = (kept(trained, base, kind, 1) for kind in ("float32", "float16"))  # type: ignore[arg-type]
    assert error(Stored(full), trained, base) == 0
    assert 0 < error(Stored(half), trained, base) < 5e-3
    assert size(half) * 2 == size(full)
    assert not Stored(half).needs_base


def test_differences_of_their_own_rank_cost_no_more_than_half_precision(branch: Any) -> None:
    trained, base = branch
    tensors = kept(trained, base, "low-rank", 2)
    stored = Stored(tensors, base)
    assert stored.needs_base
    assert error(stored, trained, base) < 1e-3
    assert size(tensors) < size(kept(trained, base, "float16", 1))


def test_a_lower_rank_is_smaller_and_costs_more(branch: Any) -> None:
    trained, base = branch
    errors, sizes = [], []
    for rank in (1, 2):
        tensors = kept(trained, base, "low-rank", rank)
        errors.append(error(Stored(tensors, base), trained, base))
        sizes.append(size(tensors))
    assert errors[0] > 0.2 > errors[1]
    assert sizes[0] < sizes[1]


def test_what_was_not_trained_takes_no_room(branch: Any) -> None:
    trained, base = branch
    tensors = kept(trained | {"encoder.conv_in.weight": base["encoder.conv_in.weight"]}, base, "low-rank", 2)
    assert not [name for name in tensors if name.startswith("encoder.conv_in.weight")]
    restored = Stored(tensors, base).tensors(CPU, torch.float32)
    assert torch.equal(restored["encoder.conv_in.weight"], base["encoder.conv_in.weight"])


@pytest.mark.parametrize("shape", [(4, 9), (9, 4)])
def test_thin_factors_are_the_nearest_ones(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    up, down = thin(matrix, 2)
    assert (up.shape, down.shape) == ((shape[0], 2), (2, shape[1]))
    rest = torch.linalg.svdvals(matrix)[2:].norm()
    assert float((matrix - up @ down).norm()) == pytest.approx(float(rest), rel=1e-4)
    torch.testing.assert_close(up.norm(dim=0), down.norm(dim=1), rtol=1e-4, atol=0)


def test_a_fit_that_is_stored_as_differences_acts_and_says_what_it_cost(
    sd1: Any, attached: Any, tmp_path: Path
) -> None:
    settings = {"steps": 2, "batch": 1, "retained": 1, "trajectories": 1, "sample_steps": 1, "rank": 1}
    settings |= {"table": "none", "rate": 1e-2}

    def erased(store: str) -> efface.Erasure:
        return efface.erase(sd1, "cat", anchor="dog", method="dumo", settings={**settings, "store": store})

    def latents(erasure: efface.Erasure, pipe: Any = sd1) -> Tensor:
        with attached(pipe, erasure):
            found: Tensor = pipe(
                "a cat", num_inference_steps=1, generator=torch.Generator().manual_seed(0), output_type="latent"
            ).images
        return found

    thin_one, whole = erased("low-rank"), erased("float32")
    report = thin_one.header.report["cat"]
    assert 0.05 < report["storage"]["error"] < 1
    assert report["storage"]["bytes"] < 0.4 * whole.header.report["cat"]["storage"]["bytes"]
    assert report["held out"]["stored"] != report["held out"]["branch"]
    thin_one.save(tmp_path / "thin.safetensors")
    loaded = efface.Erasure.load(tmp_path / "thin.safetensors")
    assert torch.equal(latents(loaded), latents(thin_one))
    assert torch.equal(latents(loaded, lora(tiny_pipeline("sd1"))), latents(thin_one))
    torch.testing.assert_close(latents(thin_one), latents(whole), rtol=0, atol=0.1)
    with pytest.raises(efface.EffaceError, match=r"give the pipeline"):
        export(thin_one, tmp_path)
    export(thin_one, tmp_path / "out", pipe=sd1)
    again = imported(sd1, tmp_path / "out", "cat", settings={"store": "float32"})
    assert torch.equal(latents(again), latents(thin_one))


def lora(pipe: Any) -> Any:
    """With an adapter that does nothing yet but moves the weights to other names."""
    from peft import LoraConfig

    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_k", "to_v"]))
    return pipe


def test_saving_and_loading_changes_nothing(sd1: Any, invented: Maker, tmp_path: Path) -> None:
    erasure = invented(sd1, store="float16")
    erasure.save(tmp_path / "a.safetensors")
    assert efface.Erasure.load(tmp_path / "a.safetensors") == erasure
