"""Infinitely many neighbours: their moments, the shrink law, and the map they give."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import efface
from efface.alignment import Aligned
from efface.solver import solve
from efface_realera import perturbation, shrinking
from efface_realera.closed_form import held, problem, wished
from efface_realera.expectation import Expected
from efface_realera.moments import isotropic_moments
from efface_realera.window import Window

NEAR, BEYOND = Window(0.9, 0.5, 1.6), Window(0.5, 0.0, 1.6)
WHOLE = (slice(0, None),)


def embedding(size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def drawn(e: Tensor, count: int, window: Window, noise: float | None = None, seed: int = 1) -> Tensor:
    return perturbation.isotropic(e, count, window, torch.Generator().manual_seed(seed), noise)


@pytest.mark.parametrize("window", [NEAR, BEYOND])
@pytest.mark.parametrize("size", [24, 240])
def test_moments_are_those_of_many_draws(size: int, window: Window) -> None:
    e = embedding(size)
    points, unit = drawn(e, 20_000, window), e / e.norm()
    along = points @ unit
    across = (points - along[:, None] * unit).square().sum(1) / (size - 1)
    moments = isotropic_moments(float(e.norm()), size, window)
    # 1.5 % is three standard errors of the least certain of them
    assert float(along.mean()) == pytest.approx(moments.along, rel=0.015)
    assert float(along.square().mean()) == pytest.approx(moments.along_square, rel=0.015)
    assert float(across.mean()) == pytest.approx(moments.across_square, rel=0.015)


def test_at_the_size_of_a_prompt_neighbours_are_a_quarter_noise_and_half_the_concept() -> None:
    near = isotropic_moments(250.0, 77 * 768, NEAR, noise=1.0)
    beyond = isotropic_moments(250.0, 77 * 768, BEYOND, noise=1.0)
    assert near.across_square == pytest.approx(0.24, abs=0.01)
    assert near.along / 250 == pytest.approx(0.51, abs=0.01)
    assert beyond.across_square == pytest.approx(0.68, abs=0.01)


def one_prompt(e: Tensor, a: Tensor) -> Aligned:
    return Aligned(e[:, None], a[:, None], torch.zeros(1, dtype=torch.long))


@pytest.mark.parametrize(("weight", "beyond", "rho"), [(5.0, 3.0, 0.63), (5.0, 0.0, 0.08), (5.0, 20.0, 0.92)])
def test_unrelated_features_shrink_as_the_law_says(weight: float, beyond: float, rho: float) -> None:
    e, a = embedding(96), embedding(96, seed=5)
    near, far = drawn(e, 4000, NEAR), drawn(e, 4000, BEYOND, seed=2)
    pairs = Aligned(near.T, a[:, None].expand(-1, 4000), torch.zeros(4000, dtype=torch.long))
    share = wished(pairs, weight) + held(far.T, beyond)
    energy = problem(share, None, 1.0).lamb
    asked = problem(share, None, 0.1 / energy)
    assert asked.lamb == pytest.approx(0.1)
    basis, _ = torch.linalg.qr(torch.stack([e, a], 1), mode="complete")
    rest = basis[:, 2:]
    measured = 1 + float((rest.T @ solve(asked).delta.dense() @ rest).trace()) / 94
    variances = [isotropic_moments(float(e.norm()), 96, window).across_square for window in (NEAR, BEYOND)]
    predicted = shrinking.gain(weight * variances[0], beyond * variances[1], 0.1)
    assert measured == pytest.approx(predicted, abs=0.01)
    assert predicted == pytest.approx(rho, abs=0.02)


def test_beyond_concept_points_hold_what_neighbours_would_shrink() -> None:
    assert shrinking.gain(1.2, 0.0, 0.1) < 0.08 < 0.6 < shrinking.gain(1.2, 2.0, 0.1)
    assert shrinking.gain(0.0, 0.0, 0.1) == 1.0


def test_a_map_that_would_shrink_everything_is_refused() -> None:
    assert shrinking.check([0.24], [4 * 0.68], 0.05, least=0.9) > 0.9
    with pytest.raises(
        efface.EffaceError, match=r"shrink every unrelated feature to 0.76 of itself.*raise beyond_weight"
    ):
        shrinking.check([0.0, 0.24], [0.0, 0.68], 0.06, least=0.9)


def test_the_map_without_sampling_is_the_limit_of_maps_with_it() -> None:
    e, a = embedding(24), embedding(24, seed=5)
    near, far = drawn(e, 20_000, NEAR), drawn(e, 20_000, BEYOND, seed=2)
    pairs = Aligned(near.T, a[:, None].expand(-1, 20_000), torch.zeros(20_000, dtype=torch.long))
    sampled = solve(problem(wished(pairs, 1.0) + held(far.T, 4.0), None, 0.01)).delta.dense()
    norm = float(e.norm())
    sides = [Expected((isotropic_moments(norm, 24, window),), (norm,), WHOLE) for window in (NEAR, BEYOND)]
    share = sides[0].wishes(one_prompt(e, a), 1.0) + sides[1].still(e[:, None], 4.0)
    analytic = solve(problem(share, None, 0.01)).delta.dense()
    assert float((analytic - sampled).norm() / sampled.norm()) < 0.05


def test_tokens_that_are_perturbed_together_and_encoders_that_are_not() -> None:
    tokens, width, blocks = 3, 20, (slice(0, 12), slice(12, 20))
    e = embedding(tokens * width).view(tokens, width)
    parts = [e[:, block].flatten() for block in blocks]
    draws = [
        drawn(part, 20_000, NEAR, seed=number).view(-1, tokens, len(part) // tokens)
        for number, part in enumerate(parts)
    ]
    points = torch.cat(draws, 2).flatten(0, 1).T  # columns
    norms = [float(part.norm()) for part in parts]
    moments = [isotropic_moments(norm, len(part), NEAR) for norm, part in zip(norms, parts, strict=True)]
    (found,) = Expected(moments, norms, blocks).still(e.T, 1.0).still
    (sampled,) = held(points, 1.0).still
    assert float((found - sampled).norm() / sampled.norm()) < 0.02
