"""One gated layer with tensors made by hand: what a gate does, and that there is one winner for each token."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from efface_gloce import gated
from efface_gloce.closed_form import slope
from efface_gloce.gate import Gates
from efface_gloce.gated import GatedLayer, Terms
from efface_gloce.layer import Layer, stacked

D, TAU = 12, 2.5
ALWAYS = Terms(eta=1.0, first=1000, last=0)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def basis(rank: int, seed: int, count: int = 1) -> Tensor:
    """Orthonormal columns, (count, D, rank)."""
    return torch.linalg.qr(random(count, D, rank, seed=seed)).Q


def layer(count: int = 1, *, threshold: float = -1.0, r1: int = 2, r3: int = 1, shared: bool = True) -> Layer:
    """Concepts whose gates are all open unless a threshold above 0 is given."""
    map_basis, taken = basis(r1, 1, count), basis(4, 2, count)
    centre = random(1, D, seed=3).expand(count, D) if shared else random(count, D, seed=3)
    return Layer(
        centre=centre,
        gate_basis=basis(r3, 4, count),
        map_basis=map_basis,
        map_mean=random(count, D, seed=5),
        slope=torch.full((count,), slope(TAU), dtype=torch.float64),
        target_mean=random(count, D, seed=6),
        threshold=torch.full((count,), threshold, dtype=torch.float64),
        update=map_basis - taken @ (taken.mT @ map_basis),
    )


def at(timestep: float | list[float], rows: int = 2, conditional: Tensor | None = None) -> Any:
    """A call as far as a gated layer looks at it."""
    timesteps = torch.tensor(timestep if isinstance(timestep, list) else [timestep] * rows)
    return SimpleNamespace(timestep=timesteps, conditional=conditional)


def literal(found: Layer, x: Tensor, eta: float) -> Tensor:
    """The formula of the paper with everything written out, (B, N, T, D)."""
    away = x[:, None] - found.centre[:, None]
    away = away / away.norm(dim=-1, keepdim=True)
    p = torch.einsum("bntd,ndr->bntr", away, found.gate_basis).square().sum(-1)
    s = torch.sigmoid(found.slope[:, None] * (p - found.threshold[:, None]))
    inside = torch.einsum("bntd,ndr->bntr", x[:, None] - found.target_mean[:, None], found.update)
    f = eta * (found.map_mean[:, None] + torch.einsum("bntr,ndr->bntd", inside, found.map_basis))
    winner = s.argmax(1)
    s = s.gather(1, winner[:, None]).squeeze(1)[..., None]
    f = f.gather(1, winner[:, None, :, None].expand(-1, 1, -1, D)).squeeze(1)
    return (1 - s) * x + s * f


def edit(found: Layer, *, terms: Terms = ALWAYS, **options: Any) -> GatedLayer:
    return GatedLayer("point", found, [terms] * found.concepts, **options)


def near(found: Layer, cosine: float) -> Tensor:
    """A token (1, 1, D) whose p for the first concept is exactly the square of a cosine."""
    v = found.gate_basis[0, :, 0]
    across = random(D, seed=9)
    across = across - (across @ v) * v
    direction = cosine * v + math.sqrt(1 - cosine**2) * across / across.norm()
    return (found.centre[0] + 3 * direction)[None, None]


@pytest.mark.parametrize("count", [1, 3])
def test_tokens_with_closed_gates_pass_through_as_they_are(count: int) -> None:
    x = random(2, 8, D, seed=7)
    assert edit(layer(count, threshold=2.0))(x, at(0)) is x


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(("count", "r3"), [(1, 1), (5, 1), (4, 3)])
def test_the_layer_is_the_formula_of_the_paper(count: int, r3: int, shared: bool) -> None:
    found = layer(count, threshold=0.3 * r3, r3=r3, shared=shared)
    found = Layer(**vars(found) | {"slope": torch.full((count,), 20.0, dtype=torch.float64)})
    x = random(2, 16, D, seed=7)
    result = edit(found, terms=Terms(eta=3.0, first=1000, last=0))(x, at(0))
    torch.testing.assert_close(result, literal(found, x, eta=3.0), rtol=0, atol=1e-12)
    assert not torch.allclose(result, x)


def test_an_open_gate_sends_the_targets_mean_to_the_mappings() -> None:
    found = layer()
    result = edit(found, terms=Terms(eta=5.0, first=1000, last=0))(found.target_mean[None], at(0, rows=1))
    torch.testing.assert_close(result[0, 0], 5 * found.map_mean[0], rtol=0, atol=1e-12)


def test_an_open_gate_loses_the_targets_directions_and_stays_in_the_mappings() -> None:
    found, taken, x = layer(), basis(4, 2)[0], random(1, 1, D, seed=7)
    layered = edit(found)
    mapped = layered(x, at(0, rows=1))
    moved = x + taken @ random(4, seed=8)
    torch.testing.assert_close(layered(moved, at(0, rows=1)), mapped, rtol=0, atol=1e-12)
    left = (mapped - found.map_mean)[0, 0]
    inside = found.map_basis[0]
    torch.testing.assert_close(inside @ (inside.T @ left), left, rtol=0, atol=1e-12)


def test_the_gate_is_half_open_at_the_threshold_and_nearly_shut_or_open_beside_it() -> None:
    cosine = 0.8
    for shift, wanted in ((0.0, 0.5), (-0.001 * TAU, 0.99), (0.001 * TAU, 0.01)):
        found = layer(threshold=cosine**2 + shift)
        opened = edit(found).gate(near(found, cosine), at(0, rows=1)).open
        assert float(opened) == pytest.approx(wanted, abs=1e-9)


def test_nearness_is_a_squared_cosine() -> None:
    found = layer(3, r3=2)
    p = Gates(found.gate_basis, found.centre)(random(2, 50, D, seed=7))
    assert p.shape == (2, 50, 3)
    assert p.min() >= 0
    assert p.max() <= 1 + 1e-12
    inside = found.centre[0] + found.gate_basis[0, :, 0]
    assert float(Gates(found.gate_basis, found.centre)(inside)[0]) == pytest.approx(1)


def test_a_token_at_the_centre_is_left_alone() -> None:
    found = layer(threshold=0.5)
    x = found.centre[None]
    assert edit(found)(x, at(0, rows=1)) is x


def test_of_two_concepts_the_nearer_one_acts_alone() -> None:
    found = layer(2, threshold=0.2)
    x = near(found, 0.99)
    gate = edit(found).gate(x, at(0, rows=1))
    assert gate.winner.item() == 0
    alone = edit(found.at([0]))(x, at(0, rows=1))
    torch.testing.assert_close(edit(found)(x, at(0, rows=1)), alone, rtol=0, atol=1e-12)


def test_with_all_gates_but_one_closed_a_stack_is_that_one() -> None:
    found = layer(4, threshold=2.0)
    found = Layer(**vars(found) | {"threshold": torch.tensor([2.0, 2.0, -1.0, 2.0]).double()})
    x = random(2, 16, D, seed=7)
    torch.testing.assert_close(edit(found)(x, at(0)), edit(found.at([2]))(x, at(0)), rtol=0, atol=1e-12)


def test_the_order_of_concepts_rows_and_tokens_does_not_matter() -> None:
    found, x = layer(5, threshold=0.3), random(3, 16, D, seed=7)
    result = edit(found)(x, at(0, rows=3))
    others = edit(found.at([3, 0, 4, 2, 1]))(x, at(0, rows=3))
    torch.testing.assert_close(others, result, rtol=0, atol=1e-12)
    turned, mixed = torch.tensor([2, 0, 1]), torch.randperm(16, generator=torch.Generator().manual_seed(0))
    again = edit(found)(x[turned][:, mixed], at(0, rows=3))
    torch.testing.assert_close(again, result[turned][:, mixed], rtol=0, atol=1e-12)


def test_of_gates_that_are_open_to_the_last_bit_the_higher_wins_or_the_first() -> None:
    found = layer(2, threshold=-1.0)
    found = Layer(**vars(found) | {"threshold": torch.tensor([-1.0, -2.0]).double()})
    x = random(1, 6, D, seed=7)
    assert (edit(found).gate(x, at(0, rows=1)).winner == 1).all()
    assert (edit(found, tie_break="first").gate(x, at(0, rows=1)).winner == 0).all()


def test_each_row_and_each_concept_has_its_own_window_of_timesteps() -> None:
    found, x = layer(2), random(4, 6, D, seed=7)
    early, late = Terms(1.0, first=900, last=500), Terms(1.0, first=600, last=100)
    both = GatedLayer("point", found, [early, late])
    result = both(x, at([901, 900, 550, 99]))
    assert torch.equal(result[0], x[0])
    assert torch.equal(result[3], x[3])
    torch.testing.assert_close(result[1], edit(found.at([0]))(x[1:2], at(0, rows=1))[0], rtol=0, atol=1e-12)
    winners = both.gate(x, at([901, 900, 550, 99])).winner
    assert (winners[1] == 0).all()
    assert set(winners[2].tolist()) == {0, 1}
    assert both(x, at(1000, rows=4)) is x


def test_rows_without_a_prompt_are_for_concepts_that_act_everywhere() -> None:
    found, x, halves = layer(2), random(4, 6, D, seed=7), torch.tensor([False, False, True, True])
    anywhere, prompted = Terms(1.0, 1000, 0), Terms(1.0, 1000, 0, everywhere=False)
    both = GatedLayer("point", found, [anywhere, prompted])
    result = both(x, at(0, rows=4, conditional=halves))
    assert torch.equal(result[2:], edit(found)(x, at(0, rows=4))[2:])
    torch.testing.assert_close(result[:2], edit(found.at([0]))(x, at(0, rows=4))[:2], rtol=0, atol=1e-12)
    alone = edit(found, terms=prompted)
    assert torch.equal(alone(x, at(0, rows=4, conditional=halves))[:2], x[:2])
    assert torch.equal(alone(x, at(0, rows=4)), edit(found)(x, at(0, rows=4)))


def test_a_scale_mixes_the_change_in() -> None:
    found, x = layer(), random(2, 6, D, seed=7)
    whole = edit(found)(x, at(0))
    for scale in (0.5, 1.5):
        part = edit(found, terms=Terms(1.0, 1000, 0, scale=scale))(x, at(0))
        torch.testing.assert_close(part, x + scale * (whole - x), rtol=0, atol=1e-12)
    assert edit(found, terms=Terms(1.0, 1000, 0, scale=0.0))(x, at(0)) is x


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_gate_of_a_half_precision_model_is_that_of_float32(dtype: torch.dtype) -> None:
    found = layer(3, threshold=0.3).each(Tensor.float)
    x = random(2, 64, D, seed=7).to(dtype)
    heard: list[Tensor] = []
    result = edit(found, listener=lambda _, gate, call: heard.append(gate.open))(x, at(0))
    assert torch.equal(heard[0], edit(found).gate(x.float(), at(0)).open)
    assert result.dtype == dtype
    closed = heard[0] == 0
    assert 0 < int(closed.sum()) < closed.numel()
    assert torch.equal(result[closed], x[closed])
    exact = edit(found)(x.float(), at(0))
    torch.testing.assert_close(result, exact.to(dtype), rtol=0, atol=0)


def test_autocast_does_not_reach_the_gate() -> None:
    found, x = layer(threshold=0.3).each(Tensor.float), random(2, 16, D, seed=7).float()
    wanted = edit(found)(x, at(0))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(edit(found)(x, at(0)), wanted)


def test_where_looking_would_wait_every_token_is_computed_to_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    found, x = layer(3, threshold=0.3), random(2, 40, D, seed=7)
    wanted, opened = edit(found)(x, at(0)), edit(found).gate(x, at(0)).open > 0
    monkeypatch.setattr(gated, "_is_free_to_look", lambda x: False)
    monkeypatch.setattr(gated, "CHUNK", 7)
    result = edit(found)(x, at(0))
    assert 0 < int(opened.sum()) < opened.numel()
    assert torch.equal(result[~opened], x[~opened])
    torch.testing.assert_close(result, wanted, rtol=0, atol=1e-12)
    assert torch.equal(edit(layer(threshold=2.0))(x, at(0)), x)
    assert torch.equal(edit(found)(x, at(1001)), x)


def test_concepts_of_different_rank_go_together() -> None:
    one, other = layer(1, threshold=0.2, r1=3, r3=2), layer(1, threshold=0.2)
    both, x = stacked([one, other]), random(2, 16, D, seed=7)
    assert both.gate_basis.shape == (2, D, 2)
    assert both.update.shape == (2, D, 3)
    for row, single in enumerate((one, other)):
        alone = edit(single)(x, at(0))
        torch.testing.assert_close(edit(both.at([row]))(x, at(0)), alone, rtol=0, atol=1e-12)
