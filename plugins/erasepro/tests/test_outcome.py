"""What is said of a module: residuals of the map as solved, as hooked and as fused, and the size of the change."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import efface
from efface.solver import Columns
from efface_erasepro.demand import Demand, Terms, averaged
from efface_erasepro.outcome import PROMISE, aligned, closed, left_over, relative_change, residuals

D, M = 24, 10


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def features(count: int, seed: int = 0, d: int = D) -> Tensor:
    """Columns with a common part, as the features of a text encoder have."""
    return 2 * random(d, 1, seed=99) + random(d, count, seed=seed)


def demand(count: int = 4, kept: int = 10, d: int = D) -> Demand:
    """Targets onto anchors, kept prompts in place, and one invariant."""
    targets = Columns.pairs(features(count, 1, d), features(count, 2, d), torch.ones(count, dtype=torch.float64))
    keep = features(kept, 3, d)
    still = features(1, 4, d)
    return Demand(
        tokens=targets,
        erased=targets,
        kept=Columns.pairs(keep, keep, torch.ones(kept, dtype=torch.float64)) if kept else None,
        still=Columns.still(still, labels=["start"]),
        still_base=still,
        rtol=None,
    )


def weights(dtype: torch.dtype, d: int = D) -> list[Tensor]:
    return [random(M, d, seed=seed).to(dtype) for seed in (7, 8)]


TERMS = Terms(ridge=0.1, budget=math.inf, refuse=True)


@pytest.mark.parametrize("count", [1, 10, 100])
def test_float32_weights_leave_no_residual_to_speak_of(count: int) -> None:
    asked = demand(count, kept=1000, d=768)
    found = closed(asked, TERMS, weights(torch.float32, 768), torch.float32)
    assert found.report["residual"]["solved"] < 1e-12
    assert found.report["residual"]["hooked"] < PROMISE
    assert found.report["residual"]["fused"] < PROMISE
    assert found.report["zero"]
    assert found.report["exact"] == count


@pytest.mark.parametrize(("dtype", "least"), [(torch.float16, 1e-4), (torch.bfloat16, 1e-3)])
def test_half_precision_never_claims_zero_and_says_how_much_is_left(dtype: torch.dtype, least: float) -> None:
    found = closed(demand(), TERMS, weights(dtype), dtype)
    assert found.report["residual"]["solved"] < 1e-12
    assert least < found.report["residual"]["fused"] < 100 * least
    assert found.report["residual"]["hooked"] > PROMISE
    assert not found.report["zero"]
    assert found.report["dtype"] == str(dtype).removeprefix("torch.")


def test_the_factors_stay_float32_for_a_model_of_half_precision() -> None:
    delta = closed(demand(), TERMS, weights(torch.float16), torch.float16).delta
    assert isinstance(delta, efface.LowRank)
    assert delta.up.dtype == delta.down.dtype == torch.float32


def test_residuals_are_those_of_the_edited_weight() -> None:
    asked = demand()
    columns, (one, other) = asked.erased, weights(torch.float32)
    delta = efface.Dense(random(D, D, seed=5) / D)
    found = residuals([one, other], delta, columns, torch.float32)
    wide = one.double()
    anchors = wide @ (columns.inputs + columns.change)
    expected = float(((wide + wide @ delta.weight) @ columns.inputs - anchors).norm() / anchors.norm())
    alone = residuals([one], delta, columns, torch.float32)
    assert alone["solved"] == pytest.approx(expected, rel=1e-12)
    assert found["solved"] == max(alone["solved"], residuals([other], delta, columns, torch.float32)["solved"])


def test_the_change_is_a_share_of_the_weights_thin_or_not() -> None:
    thin = efface.LowRank(random(D, 2, seed=5), random(2, D, seed=6))
    (one,) = weights(torch.float64)[:1]
    expected = float((one @ thin.dense()).norm() / one.norm())
    assert relative_change([one], thin) == pytest.approx(expected)
    assert relative_change([one], efface.Dense(thin.dense())) == pytest.approx(expected)
    assert relative_change([one, one], thin) == pytest.approx(expected)


def test_damping_leaves_a_residual_and_makes_a_smaller_change() -> None:
    asked, (weight, _) = demand(), weights(torch.float32)
    reports = [aligned(asked, asked.damped(0.1, damping), [weight], torch.float32).report for damping in (0.0, 0.3)]
    assert reports[0]["residual"]["solved"] < 1e-12 < 1e-3 < reports[1]["residual"]["solved"]
    assert reports[1]["change"] < reports[0]["change"]


def test_what_stays_stays_however_damped() -> None:
    asked = demand()
    for damping in (0.0, 0.3):
        found = aligned(asked, asked.damped(0.1, damping), weights(torch.float32), torch.float32)
        assert (found.exact.dense() @ asked.still.inputs).norm() < 1e-10 * asked.still.inputs.norm()


def test_two_things_that_one_feature_has_to_become_are_refused_by_name_or_softened() -> None:
    clash = demand(1, kept=10)
    twice = replace(
        clash,
        erased=Columns(
            clash.erased.inputs.repeat(1, 2),
            torch.cat([clash.erased.change, -clash.erased.change], 1),
            torch.ones(2),
            ("cat [end]", "tomcat [end]"),
        ),
    )
    from efface.solver import ConflictError

    with pytest.raises(ConflictError, match=r"'cat \[end\]' and 'tomcat \[end\]'"):
        closed(twice, TERMS, weights(torch.float32), torch.float32)
    settled = closed(twice, replace(TERMS, refuse=False), weights(torch.float32), torch.float32)
    assert settled.report["exact"] == 1
    assert settled.report["softened"] == {"tomcat [end]": None}


def test_a_repeated_target_with_one_anchor_changes_nothing() -> None:
    once = demand(3, kept=0)
    double = Columns.joined([once.erased, once.erased.part(torch.tensor([True, False, False]))])
    twice = replace(once, erased=double)
    maps = [closed(asked, TERMS, weights(torch.float32), torch.float32).exact.dense() for asked in (once, twice)]
    energy = [float(asked.erased.inputs.square().sum()) for asked in (once, twice)]
    assert energy[1] > energy[0]
    assert (maps[0] - maps[1]).norm() < 1e-8 * maps[0].norm()


def test_what_the_budget_does_not_pay_for_is_softened_and_its_price_is_told() -> None:
    asked = demand()
    free = closed(asked, TERMS, weights(torch.float32), torch.float32).report
    poor = closed(
        asked, replace(TERMS, budget=0.5 * free["spent"], refuse=False), weights(torch.float32), torch.float32
    )
    assert 0 < poor.report["exact"] < 4
    assert len(poor.report["softened"]) == 4 - poor.report["exact"]
    assert all(price > 0 for price in poor.report["softened"].values())
    assert poor.report["spent"] <= 0.5 * free["spent"]
    assert poor.report["change"] < free["change"]


def test_single_tokens_can_be_asked_for_softly_beside_their_exact_average() -> None:
    asked = demand(4)
    whole = averaged(asked.tokens, torch.zeros(4, dtype=torch.int64), ("cat",))
    each = [
        closed(replace(asked, erased=whole), replace(TERMS, singly=weight), weights(torch.float32), torch.float32)
        for weight in (0.0, 100.0)
    ]
    tokens = asked.tokens
    missed = [float((found.exact.dense() @ tokens.inputs - tokens.change).norm()) for found in each]
    assert missed[1] < 0.5 * missed[0]
    assert all(found.report["residual"]["solved"] < 1e-12 for found in each)


def test_tokens_of_one_column_are_averaged_by_weight() -> None:
    tokens = Columns(random(D, 3), random(D, 3, seed=1), torch.tensor([1.0, 3.0, 5.0]), ("a", "b", "c"))
    found = averaged(tokens, torch.tensor([0, 0, 1]), ("ab", "c"))
    assert torch.allclose(found.inputs[:, 0], (tokens.inputs[:, 0] + 3 * tokens.inputs[:, 1]) / 4)
    assert torch.allclose(found.change[:, 0], (tokens.change[:, 0] + 3 * tokens.change[:, 1]) / 4)
    assert torch.equal(found.inputs[:, 1], tokens.inputs[:, 2])
    assert found.mass.tolist() == [4.0, 5.0]
    assert found.labels == ("ab", "c")


def test_what_is_left_of_a_prompt_counts_all_its_tokens_by_weight() -> None:
    tokens = Columns(torch.eye(3).double(), torch.eye(3).double(), torch.tensor([1.0, 4.0, 1.0]))
    half = efface.Dense(torch.diag(torch.tensor([1.0, 0.5, 0.0])).double())
    left = left_over(half, tokens, tokens.change, torch.tensor([0, 0, 1]))
    assert left == pytest.approx([(0.25 * 4 / 5) ** 0.5, 1.0])
