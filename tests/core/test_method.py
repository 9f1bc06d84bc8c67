"""What makes a class a method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch

from efface.errors import BadSetting, PluginError
from efface.method import Covers, Fit, Fitted, Method, Run, check_method, cost_hint, covers, silent, splits, stacks
from efface.settings import setting


@dataclass(frozen=True)
class Blur:
    name: ClassVar[str] = "blur"
    rate: float = setting(0.5, min=0, help="how much")

    def fit(self, model: Any, request: Any, run: Run) -> Fit:
        return Fit({})

    def apply(self, patch: Any, fits: Sequence[Fitted]) -> None:
        return


def test_a_frozen_dataclass_with_fit_and_apply_is_a_method() -> None:
    method: type[Method] = Blur
    check_method(method)


def test_what_a_method_does_not_declare_has_a_plain_answer() -> None:
    assert (stacks(Blur), splits(Blur()), covers(Blur), cost_hint(Blur)) == (False, False, None, None)


def test_what_a_method_declares_can_be_asked() -> None:
    class Declared(Blur):
        stacks: ClassVar[bool] = True
        splits: ClassVar[bool] = True
        covers: ClassVar[Covers] = Covers(families=("sd1",), kinds=("mid",), bypassed_by=("image prompts",))
        cost_hint: ClassVar[float] = 3
        presets: ClassVar[Mapping[str, Mapping[str, object]]] = {"strong": {"rate": 9}}

    check_method(dataclass(frozen=True)(Declared))
    assert (stacks(Declared), splits(Declared()), covers(Declared)) == (True, True, Declared.covers)
    assert cost_hint(Declared) == 3


def test_whether_a_fit_is_shared_out_settings_may_decide() -> None:
    class Swift(Blur):
        @property
        def splits(self) -> bool:
            return self.rate > 1

    check_method(dataclass(frozen=True)(Swift))
    assert [splits(Swift(rate)) for rate in (0.5, 2.0)] == [False, True]


def variant(**changes: object) -> type:
    return dataclass(frozen=True)(type("Variant", (Blur,), changes))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: Blur(), "A method is a class, not Blur(rate=0.5)"),
        (lambda: type("Loose", (), {}), "Loose is not a frozen dataclass; decorate it with @dataclass(frozen=True)"),
        (lambda: dataclass(type("Thawed", (), {})), "Thawed is not a frozen dataclass"),
        (lambda: variant(name=None), "needs name: ClassVar[str], lower case such as 'my-method', not None"),
        (lambda: variant(name="../blur"), "not '../blur'"),
        (lambda: variant(name="blur\n"), "needs name"),
        (lambda: variant(fit=None), "has no fit(self, model, request, run)"),
        (
            lambda: variant(fit=lambda self, model: None),
            "fit(self, model); it must take fit(self, model, request, run)",
        ),
        (lambda: variant(apply=lambda self: None), "apply(self); it must take apply(self, patch, fits)"),
        (lambda: variant(stacks="yes"), "has stacks = 'yes'; it is True or False"),
        (lambda: variant(splits=1), "has splits = 1; it is True or False"),
        (lambda: variant(covers=("sd1",)), "has covers = ('sd1',); it is an efface.Covers"),
        (lambda: variant(cost_hint="long"), "has cost_hint = 'long'; it is a number of seconds"),
        (lambda: variant(cost_hint=float("inf")), "has cost_hint = inf"),
        (lambda: variant(presets=["strong"]), "has presets that are no mapping"),
        (lambda: variant(presets={"strong": 9}), "preset 'strong', is no mapping of settings: 9"),
        (lambda: variant(presets={"strong": {"rat": 9}}), "preset 'strong': blur: No setting 'rat'; it has: rate"),
        (
            lambda: variant(presets={"strong": {"rate": -1}}),
            "preset 'strong': Setting 'rate' of blur must be at least 0",
        ),
    ],
)
def test_a_class_that_breaks_the_contract_is_told_how(wrong: Callable[[], type], says: str) -> None:
    with pytest.raises(PluginError) as refused:
        check_method(wrong())
    assert says in str(refused.value)


def test_one_seed_gives_one_sequence_of_numbers() -> None:
    first, again = (torch.rand(3, generator=Run(seed=7).generator()) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(first, torch.rand(3, generator=torch.Generator().manual_seed(7)))


def test_streams_of_one_seed_differ() -> None:
    run = Run(seed=7)
    noise, order, again = (torch.rand(3, generator=run.generator(stream=s)) for s in ("noise", "order", "noise"))
    assert torch.equal(noise, again)
    assert not torch.equal(noise, order)


@pytest.mark.parametrize("seed", [-1, 2**64, 0.5, True, "3", None])
def test_a_seed_that_no_generator_takes_is_refused(seed: Any) -> None:
    with pytest.raises(BadSetting, match="The seed must be a whole number from 0 to 18446744073709551615"):
        Run(seed=seed)


def test_a_run_tells_nobody_unless_asked() -> None:
    told: list[tuple[int, int, str]] = []
    Run().progress(1, 2, "noise")
    Run(progress=lambda done, total, what: told.append((done, total, what))).progress(1, 2, "noise")
    assert Run().progress is silent
    assert told == [(1, 2, "noise")]
