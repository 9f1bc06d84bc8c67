"""The pass in which every module is edited just before it runs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import efface
from efface_erasepro.walk import moved, walking

ROWS, EDITED, D = 5, 2, 4


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Two(nn.Module):
    """Two layers in a row, of which the second is run `times` times."""

    def __init__(self, times: int = 1) -> None:
        super().__init__()
        self.times, self.one, self.other = times, nn.Linear(D, D), nn.Linear(D, D)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        for _ in range(self.times):
            x = self.other(x)
        return x


def layers(model: Two) -> dict[str, nn.Module]:
    return {"one": model.one, "other": model.other}


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.modules())


def test_each_module_is_solved_for_what_the_modules_before_it_made_of_the_batch() -> None:
    model, x, seen = Two(), random(ROWS, 3, D), {}
    delta = efface.LowRank(random(D, 1, seed=1), random(1, D, seed=2))

    def solve(name: str, features: Tensor) -> efface.LowRank:
        seen[name] = features.clone()
        return delta

    with torch.no_grad(), walking(layers(model), ROWS, EDITED, solve):
        model(x)
    assert list(seen) == ["one", "other"]
    assert torch.equal(seen["one"], x)
    edited = model.one(x[:EDITED] + x[:EDITED] @ delta.dense().T)
    assert torch.allclose(seen["other"][:EDITED], edited, atol=1e-6)
    assert torch.allclose(seen["other"][EDITED:], model.one(x[EDITED:]), atol=1e-6)


def test_rows_that_are_not_edited_keep_their_bits() -> None:
    x = random(ROWS, 3, D)
    for delta in (efface.Dense(random(D, D)), efface.LowRank(random(D, 1), random(1, D))):
        result = moved(x, EDITED, delta)
        assert torch.equal(result[EDITED:], x[EDITED:])
        assert torch.allclose(result[:EDITED], x[:EDITED] + x[:EDITED] @ delta.dense().T, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_rows_are_moved_in_float32_at_least_and_keep_their_dtype(dtype: torch.dtype) -> None:
    x, delta = random(ROWS, D).to(dtype), efface.Dense(random(D, D))
    result = moved(x, EDITED, delta)
    assert result.dtype == dtype
    wide = x[:EDITED].to(torch.promote_types(dtype, torch.float32))
    assert torch.equal(result[:EDITED], (wide + wide @ delta.weight.to(wide).T).to(dtype))


def test_no_hook_is_left_behind_not_even_by_an_error() -> None:
    model = Two()

    def fails(name: str, features: Tensor) -> efface.Dense:
        raise ZeroDivisionError(name)

    with pytest.raises(ZeroDivisionError), walking(layers(model), ROWS, EDITED, fails):
        model(random(ROWS, D))
    assert hooks(model) == 0


def test_a_module_that_did_not_run_is_named() -> None:
    model = Two(times=0)
    nothing = efface.Dense(torch.zeros(D, D))
    with pytest.raises(efface.EditLost, match="other"), walking(layers(model), ROWS, EDITED, lambda *_: nothing):
        model(random(ROWS, D))
    assert hooks(model) == 0


def test_a_batch_in_parts_is_refused() -> None:
    model = Two()
    nothing = efface.Dense(torch.zeros(D, D))
    with (
        pytest.raises(efface.EditLost, match=f"2 of {ROWS} prompts"),
        walking(layers(model), ROWS, EDITED, lambda *_: nothing),
    ):
        model(random(2, D))
