"""The fit: what it leaves alone, what it counts and shares, and that its results do not depend on how it ran."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import efface
from efface.testing import tiny_pipeline
from efface_gloce import collector
from efface_gloce.artifact import unpacked
from efface_gloce.moments import Running

Fit = Callable[..., efface.Erasure]
Calls = Callable[[], tuple[int, int]]

TWO = (efface.Concept("cat", anchor="fish"), efface.Concept("red car", anchor="fish"))


@pytest.fixture(scope="module")
def exact() -> Any:
    return tiny_pipeline("sd1", dtype=torch.float64)


def tensors(erasure: efface.Erasure, part: str) -> Iterator[Tensor]:
    yield from (tensor for name, tensor in sorted(erasure.tensors.items()) if name.endswith(f".{part}"))


def assert_same(one: efface.Erasure, other: efface.Erasure, rows: tuple[int, int] = (0, 0), rtol: float = 1e-9) -> None:
    """The same concept in two erasures: equal means, thresholds and projectors.

    Bases are defined up to sign and rotation only; where the report says that they are not well defined, as in a mid
    block of one token, not even that.
    """
    unclear = {name.rpartition(" ")[2] for name in other.header.report.get("bases that are not well defined", ())}
    assert len(unclear) <= 1
    for point in other.header.points:
        if point in unclear:
            continue
        mine, its = (_concept(erasure, point, row) for erasure, row in zip((one, other), rows, strict=True))
        for name, wanted in its.items():
            torch.testing.assert_close(
                mine[name], wanted, rtol=rtol, atol=10 * rtol, msg=lambda m, at=(name, point): f"{at}: {m}"
            )


def _concept(erasure: efface.Erasure, point: str, row: int) -> dict[str, Tensor]:
    """What a concept has at a point, bases as products that do not depend on their choice."""
    layer = unpacked(erasure.fit)[point]
    gate, onto, update = layer.gate_basis[row], layer.map_basis[row], layer.update[row]
    plain = {name: getattr(layer, name)[row] for name in ("centre", "map_mean", "target_mean", "threshold", "slope")}
    return plain | {"gate": gate @ gate.mT, "map": onto @ update.mT}


def state(pipe: Any) -> dict[str, Any]:
    """Whatever a fit could leave behind: weights, modes, hooks, random state, scheduler."""
    modules = [module for part in (pipe.unet, pipe.text_encoder, pipe.vae) for module in part.modules()]
    return {
        "weights": [weight.clone() for part in (pipe.unet, pipe.text_encoder) for weight in part.state_dict().values()],
        "modes": [module.training for module in modules],
        "hooks": [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules],
        "random": [torch.get_rng_state()],
        "scheduler": repr(vars(pipe.scheduler)),
    }


def assert_untouched(before: dict[str, Any], after: dict[str, Any]) -> None:
    for name in ("weights", "random"):
        assert all(torch.equal(one, other) for one, other in zip(before[name], after[name], strict=True)), name
    assert all(before[name] == after[name] for name in ("modes", "hooks", "scheduler"))


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_a_fit_leaves_the_pipeline_as_it_was(family: Any, quick: Fit) -> None:
    pipe = tiny_pipeline(family)
    efface.Model(pipe).encode(["a cat"])  # the first time, transformers puts hooks of its own on text encoders
    before = state(pipe)
    quick(pipe)
    assert_untouched(before, state(pipe))


@pytest.mark.parametrize("when", ["features", "thresholds"])
def test_so_does_a_fit_that_breaks_off(when: str, pipe: Any, quick: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> Any:
        raise KeyboardInterrupt

    before = state(pipe)
    monkeypatch.setattr(collector, "grid_size", broken) if when == "features" else monkeypatch.setattr(
        collector.Gates, "__call__", broken
    )
    with pytest.raises(KeyboardInterrupt):
        quick(pipe)
    assert_untouched(before, state(pipe))


def test_the_same_fit_twice_is_the_same_to_the_last_bit(pipe: Any, cat: efface.Erasure, quick: Fit) -> None:
    assert quick(pipe) == cat
    assert quick(pipe, seed=1) != cat


def test_a_fit_in_batches_equals_one_trajectory_by_trajectory(exact: Any, quick: Fit, calls: Calls) -> None:
    together = quick(exact, settings={"batch": 5})
    assert calls() == (2 * (2 + 1), 2 * 4 * 2)
    alone = quick(exact, settings={"batch": 1})
    assert calls() == (2 * 4 * 2, 2 * 4 * 2)
    assert {tensor.dtype for tensor in together.tensors.values()} == {torch.float64}
    assert_same(together, alone)


def test_the_report_says_how_many_calls_each_set_of_prompts_takes(
    pipe: Any, quick: Fit, calls: Calls, tmp_path: Path
) -> None:
    concept = efface.Concept("cat", anchor="fish", synonyms=("kitten",))
    settings = {"seeds": 3, "kept_seeds": 2, "boundary": ("dog", "bird")}
    found = quick(pipe, [concept], keep=["a house"], settings=settings, folder=tmp_path).header.report["U-Net calls"]
    assert found == {"target": 12, "mapping": 6, "centre": 6, "boundary": 12, "kept": 4}
    assert calls()[1] == sum(found.values())
    again = quick(pipe, [concept], keep=["a house"], settings=settings, folder=tmp_path)
    assert again.header.report["U-Net calls"] == found
    assert calls() == (0, 0)
    circle = [efface.Concept("cat", anchor="fish"), efface.Concept("bird", anchor="cat")]
    found = quick(pipe, circle).header.report["U-Net calls"]
    assert (found["target"], found["mapping"], found["boundary"]) == (8, 4, 4)
    assert calls()[1] == sum(found.values())


def test_concepts_that_are_fitted_together_equal_those_fitted_alone(exact: Any, quick: Fit) -> None:
    both = quick(exact, TWO, settings={"batch": 3})
    for row, concept in enumerate(TWO):
        assert_same(both, quick(exact, [concept]), rows=(row, 0))


def test_what_concepts_share_is_collected_and_stored_once(exact: Any, quick: Fit, calls: Calls) -> None:
    both = quick(exact, TWO, settings={"batch": 100})
    assert calls() == (2 * 2, 2 * 5 * 2)
    assert sum(both.header.report["U-Net calls"].values()) == 2 * 5 * 2
    assert {len(tensor) for part in ("centre", "map_basis", "map_mean") for tensor in tensors(both, part)} == {1}
    assert {len(tensor) for part in ("update", "gate_basis", "threshold") for tensor in tensors(both, part)} == {2}
    third = quick(exact, [*TWO, efface.Concept("house", anchor="bird")])
    assert {len(tensor) for tensor in tensors(third, "centre")} == {1}
    assert {len(tensor) for tensor in tensors(third, "map_basis")} == {2}
    assert third.header.facts["rows"] == {"centre": [0, 0, 0], "mapping": [0, 0, 1]}


def test_what_is_kept_sets_the_threshold_too_with_seeds_of_its_own(
    exact: Any, quick: Fit, calls: Calls, tmp_path: Path
) -> None:
    settings = {"seeds": 3, "kept_seeds": 2}
    plain = quick(exact, settings=settings, folder=tmp_path)
    calls()
    kept = quick(exact, settings=settings, folder=tmp_path, keep=["a bird"])
    assert calls() == (2, 2 * 2)
    assert kept.header.report["words"]["cat"]["kept"] == ["a bird"]
    of_the_bird = quick(exact, settings=settings | {"boundary": (), "boundaries": 0}, keep=["a bird"])
    changed = 0
    for point, layer in unpacked(kept.fit).items():
        c, without, alone = (float(unpacked(one.fit)[point].threshold) for one in (kept, plain, of_the_bird))
        assert layer.threshold.isfinite().all()
        changed += c != without and c != alone
    assert changed == len(kept.header.points)


def test_no_features_are_kept_during_a_fit(pipe: Any, quick: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    import gc
    import weakref

    alive: list[Any] = []
    most = 0
    add = Running.add

    def watched(self: Running, x: Tensor) -> None:
        nonlocal most
        gc.collect(0)
        alive[:] = [ref for ref in alive if ref() is not None]
        most = max(most, len(alive))
        alive.append(weakref.ref(x))
        add(self, x)

    monkeypatch.setattr(Running, "add", watched)
    quick(pipe)
    assert most <= 1


def test_the_bases_are_orthonormal_and_the_update_is_a_contraction(cat: efface.Erasure) -> None:
    for part in ("map_basis", "gate_basis"):
        for basis in tensors(cat, part):
            gram = basis.mT @ basis
            torch.testing.assert_close(gram, torch.eye(gram.shape[1]).expand_as(gram), rtol=0, atol=1e-5)
    for update in tensors(cat, "update"):
        assert torch.linalg.matrix_norm(update, 2).max() <= 1 + 1e-5
