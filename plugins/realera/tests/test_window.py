"""Points in a window of cosines: where a ray crosses it, and draws that never miss it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from scipy.stats import kstest
from torch import Tensor
from torch.nn.functional import cosine_similarity

import efface
from efface_realera import perturbation
from efface_realera.window import Rays, Window

REFERENCE = Path(__file__).parent / "reference" / "realera_window.safetensors"
NEAR, BEYOND = Window(0.9, 0.5, 1.6), Window(0.5, 0.0, 1.6)


@pytest.fixture(scope="module")
def reference() -> tuple[dict[str, Tensor], dict[str, Any]]:
    with safe_open(REFERENCE, "pt") as file:
        tensors = {key: file.get_tensor(key).double() for key in file.keys()}  # noqa: SIM118
        return tensors, json.loads(file.metadata()["params"])


def embedding(size: int, norm: float, seed: int = 0) -> Tensor:
    e = torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return e / e.norm() * norm


def drawn(e: Tensor, count: int, window: Window, seed: int = 1, noise: float | None = None) -> Tensor:
    return perturbation.isotropic(e, count, window, torch.Generator().manual_seed(seed), noise)


@pytest.mark.parametrize("name", [f"w{number}" for number in range(8)])
def test_the_interval_on_a_ray_is_the_one_that_bisection_finds(name: str, reference: Any) -> None:
    tensors, params = reference
    case, e, v = params["cases"][name], tensors[f"{name}.e"], tensors[f"{name}.v"]
    distance = case["D"] / float(e.norm())
    floor = -1.0 if case["s_floor"] is None else case["s_floor"]
    rays = Rays.through(e, v[None])
    for kind, window in (
        ("near", Window(case["S_hi"], case["S_lo"], distance)),
        ("beyond", Window(case["S_lo"], floor, distance)),
    ):
        low, high = (each / rays.reach for each in window.radii(rays))
        torch.testing.assert_close(torch.cat([low, high]), tensors[f"{name}.{kind}"], rtol=0, atol=1e-11)
        assert bool(low >= high) == bool(tensors[f"{name}.empty"][("near", "beyond").index(kind)])


def test_the_port_accepts_exactly_what_lies_in_the_window(reference: Any) -> None:
    tensors, params = reference
    e, v, draws = tensors["draws.e"], tensors["draws.v"], params["draws"]
    rays, distance = Rays.through(e, v), draws["D"] / float(e.norm())
    kinds = torch.zeros(len(v))
    for kind, window in enumerate((Window(0.9, 0.5, distance), Window(0.5, -1.0, distance)), 1):
        low, high = window.radii(rays)
        tested = torch.arange(len(v)) >= draws["first_beyond_index"]
        kinds[(low <= tensors["draws.r"]) & (tensors["draws.r"] <= high) & (tested == (kind == 2))] = kind
    assert torch.equal(kinds.long(), tensors["draws.kind"].long())
    assert set(kinds.tolist()) == {0, 1, 2}


@pytest.mark.parametrize(("size", "norm"), [(64, 1.0), (64, 1e4), (768, 27.7), (768, 1e4)])
def test_every_draw_lies_in_its_window(size: int, norm: float) -> None:
    e = embedding(size, norm)
    near, beyond = drawn(e, 1000, NEAR), drawn(e, 1000, BEYOND)
    cosine = cosine_similarity(near, e[None])
    assert 0.5 - 1e-6 <= float(cosine.min()) < float(cosine.max()) <= 0.9 + 1e-6
    assert float(cosine_similarity(beyond, e[None]).max()) < 0.5
    for points in (near, beyond):
        assert float((points - e).norm(dim=1).max()) <= 1.6 * norm * (1 + 1e-12)


def test_draws_of_the_size_of_a_whole_prompt_lie_where_the_port_puts_them() -> None:
    e = embedding(77 * 768, 250.0)
    near = drawn(e, 50, NEAR, noise=1.0)
    cosine = cosine_similarity(near, e[None])
    assert 0.5 <= float(cosine.min()) < float(cosine.max()) <= 0.9
    alpha = 1 - near @ e / e.square().sum()  # v is nearly orthogonal to e
    assert 0.32 < float(alpha.min()) < float(alpha.max()) < 0.65


def test_the_radius_is_uniform_on_its_interval() -> None:
    e = embedding(96, 9.8)
    points = drawn(e, 4000, NEAR)
    rays = Rays.through(e, points)  # the ray through a drawn point is the ray through its v
    low, high = NEAR.radii(rays)
    place = (rays.reach - low) / (high - low)
    assert kstest(place.numpy(), "uniform").pvalue > 0.01
    assert float((points - e).norm(dim=1).mean()) == pytest.approx(float((low + high).mean() / 2), rel=0.01)


def test_one_draw_per_point_and_none_is_rejected() -> None:
    e, ours, theirs = embedding(64, 8.0), torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    perturbation.isotropic(e, 10, NEAR, ours)
    torch.randn(10, 64, generator=theirs, dtype=e.dtype)
    torch.rand(10, generator=theirs, dtype=e.dtype)
    assert torch.equal(ours.get_state(), theirs.get_state())


def test_a_seed_gives_the_same_bits() -> None:
    e = embedding(768, 27.7)
    assert torch.equal(drawn(e, 20, NEAR, seed=1), drawn(e, 20, NEAR, seed=1))
    assert not torch.equal(drawn(e, 20, NEAR, seed=1), drawn(e, 20, NEAR, seed=2))


def test_in_few_dimensions_a_ray_that_misses_the_window_is_turned_round() -> None:
    e = embedding(4, 2.0)
    points = drawn(e, 2000, BEYOND)
    cosine = cosine_similarity(points, e[None])
    assert -1e-9 <= float(cosine.min()) < float(cosine.max()) < 0.5
    assert float((points - e).norm(dim=1).max()) <= 3.2 + 1e-9


def test_a_window_that_is_out_of_reach_is_refused() -> None:
    with pytest.raises(efface.EffaceError, match=r"lies within 0.2 norms of the embedding: the nearest is 0.4"):
        drawn(embedding(768, 27.7), 5, Window(0.9, 0.5, 0.2))


def test_correlated_draws_lie_in_the_window_with_uniform_cosines_along_what_they_are_made_of() -> None:
    e, generator = embedding(64, 8.0), torch.Generator().manual_seed(1)
    spread = torch.randn(10, 64, generator=generator, dtype=torch.float64)
    points = perturbation.correlated(e, 3000, Window(0.9, 0.5, 4.0), generator, spread)
    cosine = cosine_similarity(points, e[None])
    assert kstest(((cosine - 0.5) / 0.4).numpy(), "uniform").pvalue > 0.01
    noise = points - e
    assert float((noise - noise @ torch.linalg.pinv(spread) @ spread).abs().max()) < 1e-9


def test_correlated_draws_keep_their_distance() -> None:
    e, generator = embedding(64, 8.0), torch.Generator().manual_seed(1)
    spread = torch.randn(10, 64, generator=generator, dtype=torch.float64)
    points = perturbation.correlated(e, 1000, Window(0.9, 0.0, 1.0), generator, spread)
    assert float((points - e).norm(dim=1).max()) <= 8.0 + 1e-9
    assert float(cosine_similarity(points, e[None]).max()) < 0.9
