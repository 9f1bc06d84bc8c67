"""Moments that are summed as they come, pyramids of grids, and the closed forms."""

from __future__ import annotations

import gc
import math
import weakref

import pytest
import torch
from torch import Tensor

import efface
from efface_gloce.closed_form import leading, slope, target, threshold
from efface_gloce.moments import Running, grid_size, pyramid, spread


def vectors(count: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(count, 6, generator=generator, dtype=torch.float64) + torch.arange(6) * 20).to(dtype)


def running(*batches: Tensor) -> Running:
    found = Running()
    for batch in batches:
        found.add(batch)
    return found


def test_moments_that_are_summed_equal_those_of_all_vectors_at_once() -> None:
    x = vectors(500)
    found = spread(running(*x.split(37)).moments())
    torch.testing.assert_close(found.mean, x.mean(0), rtol=1e-12, atol=0)
    torch.testing.assert_close(found.covariance, x.T.cov(correction=0), rtol=0, atol=1e-11)


def test_float32_sums_lose_nothing_to_a_mean_far_from_zero() -> None:
    x = vectors(4000, dtype=torch.float32) + 100
    found = spread(running(*x.split(100)).moments())
    exact = x.double().T.cov(correction=0)
    assert float((found.covariance - exact).norm() / exact.norm()) < 1e-6
    assert float((found.mean - x.double().mean(0)).norm() / x.double().mean(0).norm()) < 1e-7


def test_half_precision_features_are_summed_in_float32() -> None:
    x = vectors(300).half()
    found = spread(running(*x.split(50)).moments())
    exact = x.double().T.cov(correction=0)
    assert float((found.covariance - exact).norm() / exact.norm()) < 1e-6


def test_moments_of_several_prompts_add_up() -> None:
    one, other = vectors(120, seed=1), vectors(60, seed=2) * 3
    found = spread(running(one).moments() + running(*other.split(7)).moments())
    both = torch.cat([one, other])
    torch.testing.assert_close(found.mean, both.mean(0), rtol=1e-12, atol=0)
    torch.testing.assert_close(found.covariance, both.T.cov(correction=0), rtol=1e-10, atol=1e-9)


def test_no_features_are_kept() -> None:
    found, alive = Running(), []
    for seed in range(5):
        batch = vectors(50, seed)
        alive.append(weakref.ref(batch))
        found.add(batch)
        del batch
    gc.collect()
    assert [ref() for ref in alive] == [None] * 5
    sizes = [tensor.numel() for tensor in vars(found.moments()).values() if isinstance(tensor, Tensor)]
    assert sizes == [6, 6, 36]


def test_moments_of_nothing_are_refused() -> None:
    with pytest.raises(efface.EffaceError, match="No features came in"):
        Running().moments()


def test_a_pyramid_holds_a_grid_and_its_poolings() -> None:
    tokens = torch.arange(64.0).reshape(1, 64, 1)
    found = pyramid(tokens, (8, 8))
    assert found.shape == (64 + 16 + 4 + 1, 1)
    assert torch.equal(found[:64, 0], tokens[0, :, 0])
    assert found[64, 0] == (0 + 1 + 8 + 9) / 4
    assert found[-1, 0] == 31.5
    torch.testing.assert_close(found.mean(), tokens.mean())


def test_a_pyramid_of_an_oblong_grid_ends_where_it_is_one_row_high() -> None:
    found = pyramid(torch.randn(2, 2 * 6, 5), (2, 6))
    assert found.shape == (2 * (12 + 3), 5)
    assert pyramid(torch.randn(2, 3 * 5, 5), (3, 5)).shape == (2 * (15 + 2), 5)
    assert pyramid(torch.randn(2, 7, 5), (1, 7)).shape == (14, 5)


@pytest.mark.parametrize(
    ("latents", "tokens", "size"),
    [
        ((64, 64), 4096, (64, 64)),
        ((64, 96), 96, (8, 12)),
        ((9, 5), 15, (5, 3)),
        ((9, 5), 6, (3, 2)),
        ((8, 8), 1, (1, 1)),
    ],
)
def test_the_grid_of_a_layer_follows_from_its_tokens(
    latents: tuple[int, int], tokens: int, size: tuple[int, int]
) -> None:
    assert grid_size(latents, tokens) == size


def test_tokens_that_form_no_grid_are_refused() -> None:
    with pytest.raises(efface.EffaceError, match="77 tokens are no halving of a 64 x 64 latent"):
        grid_size((64, 64), 77)


def test_the_bases_of_a_fit_are_orthonormal_and_the_update_has_none_of_the_target() -> None:
    features, mapping = spread(running(vectors(300, 1)).moments()), spread(running(vectors(300, 2)).moments())
    map_basis, centre = leading(mapping.covariance, 2).vectors, vectors(1, 3)[0]
    found = target(features, map_basis, centre, rank=3, gate_rank=2)
    for basis in (map_basis, found.gate_basis):
        torch.testing.assert_close(basis.T @ basis, torch.eye(2, dtype=torch.float64), rtol=0, atol=1e-12)
    taken = leading(features.covariance, 3).vectors
    assert (found.update.T @ taken).abs().max() < 1e-12
    assert torch.linalg.matrix_norm(found.update, 2) <= 1 + 1e-12


def test_the_gate_looks_from_the_centre_to_the_target() -> None:
    features, centre = spread(running(vectors(300, 1)).moments()), torch.zeros(6, dtype=torch.float64)
    found = target(features, torch.eye(6, dtype=torch.float64)[:, :1], centre, rank=1, gate_rank=1)
    away = vectors(300, 1).mean(0)
    assert abs(float(found.gate_basis[:, 0] @ away / away.norm())) > 0.999


def test_a_basis_says_how_clear_it_is() -> None:
    covariance = torch.diag(torch.tensor([1.0, 4.0, 2.0, 2.0, 0.0])).double()
    assert leading(covariance, 1).gap == 2
    assert not leading(covariance, 2).is_clear
    assert leading(covariance, 4).gap == math.inf
    assert leading(covariance, 5).gap == 1
    assert leading(covariance, 9).vectors.shape == (5, 5)


def test_the_threshold_lies_tau_deviations_above_the_mean_peak() -> None:
    peaks = torch.tensor([0.1, 0.2, 0.6])
    assert float(threshold(peaks, 2.0)) == pytest.approx(0.3 + 2 * math.sqrt(0.07))


def test_the_slope_is_the_published_one() -> None:
    assert slope(2.5) == pytest.approx(1838.05, abs=5e-3)
    assert slope(1.5) == pytest.approx(3063.41, abs=5e-3)
    assert slope(2.5) * 0.001 * 2.5 == pytest.approx(math.log(99))
