"""Whatever was done to a stack of erasures, the pipeline is as the final list alone makes it, to the last bit.

`EFFACE_SEQUENCES=20000 python -m pytest tests/test_stacks.py` tries that many random sequences in place of 1,000.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import efface
from efface import BadEdit, Editor, EffaceError, Erasure, Registry, fingerprint
from efface.testing import MethodTests, tiny_pipeline

ROOT = Path(__file__).resolve().parents[1]
SEQUENCES = int(os.environ.get("EFFACE_SEQUENCES", "1000"))
LONGEST = 10
TABLES = ("_forward_pre_hooks", "_forward_hooks")

Entries = tuple[tuple[str, float, bool], ...]
Operation = tuple[str, int, float, int]


# Edits of every sort, at every sort of place


def drawn(name: str, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(name.encode()))) * 0.3


@dataclass(frozen=True)
class Toy:
    """One verb at the first point of one kind."""

    name: ClassVar[str] = "toy"
    verb: str = efface.setting("map", help="the verb")
    kind: str = efface.setting("text", help="the kind of point, or the path of a weight")
    form: str = efface.setting("thin", help="thin or dense")

    def fit(self, model: efface.Model, request: efface.Request, run: efface.Run) -> efface.Fit:
        return efface.Fit({"seed": torch.tensor(sum(request.concepts[0].text.encode()))})

    def apply(self, patch: efface.Patch, fits: Sequence[efface.Fitted]) -> None:
        for fitted in fits:
            self.put(patch, f"{self.verb}{self.kind}{int(fitted.fit.tensors['seed'])}")

    def put(self, patch: efface.Patch, name: str) -> None:
        if self.verb == "step":
            patch.step(lambda call: call.memo.setdefault("times", []).append(name))
            skips = [point for point in patch.points if point.kind == "skip"]
            patch.output(skips[0], lambda x, call: x * (1 + len(call.memo["times"]) / 10))
            return
        point: Any = next((point for point in patch.points if point.kind == self.kind), self.kind)
        if self.verb in ("map", "add"):
            ins = 36 if isinstance(point, str) else point.in_features
            outs = 8 if isinstance(point, str) else point.out_features
            getattr(patch, self.verb)(point, self.change(name, ins if self.verb == "map" else outs, ins))
        else:
            getattr(patch, self.verb)(point, self.edit(name))

    def change(self, name: str, outs: int, ins: int) -> Any:
        if self.form == "dense":
            return efface.Dense(drawn(name, outs, ins))
        return efface.LowRank(drawn(name, outs, 2), drawn(name[::-1], 2, ins))

    @staticmethod
    def edit(name: str) -> Callable[[Tensor, efface.Call], Tensor]:
        factor = 1 + sum(name.encode()) % 7 / 10
        return lambda x, call: torch.tanh(x) * factor


@dataclass(frozen=True)
class Team:
    """One edit for all of its erasures."""

    name: ClassVar[str] = "team"
    stacks: ClassVar[bool] = True

    def fit(self, model: efface.Model, request: efface.Request, run: efface.Run) -> efface.Fit:
        return efface.Fit({"direction": drawn(request.concepts[0].text, 8)})

    def apply(self, patch: efface.Patch, fits: Sequence[efface.Fitted]) -> None:
        total = torch.stack([fitted.scale * fitted.fit.tensors["direction"] for fitted in fits]).sum(0)
        point = next(point for point in patch.points if point.kind == "cross_attn.out")
        patch.output(point, lambda x, call: torch.tanh(x) + total.to(x))


class Plugin:
    @efface.hookimpl
    def efface_methods(self) -> list[type]:
        return [Toy, Team]


TOYS = [
    Toy("map", "text"), Toy("map", "text", "dense"), Toy("output", "text"), Toy("map", "cross_attn.k"),
    Toy("add", "cross_attn.v"), Toy("map", "cross_attn.v", "dense"), Toy("input", "self_attn.q"),
    Toy("output", "cross_attn.out"), Toy("output", "skip"), Toy("output", "mid"), Toy("step"),
    Toy("add", "unet.conv_in"), Toy("add", "text_encoder.fc2"), Toy("map", "text_encoder.k", "dense"),
    Toy("output", "text_encoder.v"), Team(),
]  # fmt: skip


def slim_pipeline() -> Any:
    """A pipeline whose U-Net has one block down and one up: fast."""
    from diffusers import UNet2DConditionModel

    pipe = tiny_pipeline("sd1")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        pipe.unet = UNet2DConditionModel(
            sample_size=4,
            norm_num_groups=4,
            layers_per_block=1,
            block_out_channels=(8,),
            down_block_types=("CrossAttnDownBlock2D",),
            up_block_types=("UpBlock2D",),
            attention_head_dim=2,
            cross_attention_dim=16,
        ).eval()
    return pipe


# What is on a pipeline


def models(pipe: Any) -> Iterator[tuple[str, nn.Module]]:
    return ((part, getattr(pipe, part)) for part in ("unet", "text_encoder"))


def hooks_on(pipe: Any) -> tuple[tuple[str, ...], ...]:
    """Every hook in its order: where it is and which function it is."""
    return tuple(
        (part, path, table, getattr(hook, "__qualname__", type(hook).__qualname__))
        for part, model in models(pipe)
        for path, module in model.named_modules()
        for table in TABLES
        for hook in getattr(module, table).values()
    )


def weights_of(pipe: Any) -> bytes:
    """All weights; read anew where torch has counted a write."""
    weights = [weight.detach() for _, model in models(pipe) for weight in model.parameters()]
    versions = [weight._version for weight in weights]
    if getattr(pipe, "versions", None) != versions:
        digest = hashlib.sha256(b"".join(weight.numpy().tobytes() for weight in weights))
        vars(pipe).update(versions=versions, digest=digest.digest())
    found: bytes = pipe.digest
    return found


@torch.no_grad()
def outputs_of(pipe: Any) -> bytes:
    """The noise for one prompt, which the pipeline's text encoder reads now."""
    ids = torch.arange(16)[None] % 7
    text = pipe.text_encoder(ids)[0]
    size = pipe.unet.config.sample_size
    sample = torch.linspace(-1, 1, 4 * size * size).view(1, 4, size, size)
    made: bytes = pipe.unet(sample, 300, text).sample.numpy().tobytes()
    return made


def seen(pipe: Any) -> tuple[object, ...]:
    return hooks_on(pipe), weights_of(pipe), outputs_of(pipe)


# What can be done to a stack

KINDS = ("attach", "attach", "detach", "enable", "disable", "scale", "move", "reattach", "fuse", "unfuse")
OPERATIONS = st.lists(
    st.tuples(st.sampled_from(KINDS), st.integers(0, 99), st.sampled_from([0.0, 0.5, 1.0, 2.0]), st.integers(0, 3)),
    min_size=LONGEST // 2,
    max_size=LONGEST,
)


def act(editor: Editor, operation: Operation, stock: Mapping[str, Erasure]) -> None:
    """One operation; what cannot be done now is refused, and changes nothing."""
    kind, number, scale, place = operation
    labels = [entry.label for entry in editor.entries]
    if kind == "attach":
        name = sorted(stock)[number % len(stock)]
        editor.attach(stock[name], scale=scale, enabled=place != 3)
    elif kind in ("reattach", "fuse", "unfuse"):
        getattr(editor, kind)()
    elif labels:
        label = labels[number % len(labels)]
        {
            "detach": lambda: editor.detach(label),
            "enable": lambda: editor.enable(label),
            "disable": lambda: editor.disable(label),
            "scale": lambda: editor.scale(label, scale),
            "move": lambda: editor.move(label, place),
        }[kind]()


class Trial:
    """Two equal pipelines: one on which sequences run, one that has the final list alone, once for each list."""

    def __init__(self, make: Callable[[], Any], stock: Mapping[str, Erasure], registry: Registry) -> None:
        self.pipe, self.other = make(), make()
        self.stock, self.registry = stock, registry
        self.names = {erasure.digest: name for name, erasure in stock.items()}
        for pipe in (self.pipe, self.other):
            outputs_of(pipe)
        self.base = seen(self.pipe)
        assert seen(self.other) == self.base
        self.known: dict[tuple[Entries, bool], tuple[object, ...]] = {}

    def run(self, operations: Sequence[Operation]) -> None:
        editor = Editor(self.pipe, registry=self.registry)
        try:
            for operation in operations:
                with suppress(BadEdit, EffaceError):
                    act(editor, operation, self.stock)
            assert editor.verify() == []
            assert seen(self.pipe) == self.expected(self.entries(editor), editor.fused)
        finally:
            editor.close()
        assert (hooks_on(self.pipe), weights_of(self.pipe)) == self.base[:2]

    def entries(self, editor: Editor) -> Entries:
        return tuple((self.names[one.erasure.digest], one.scale, one.enabled) for one in editor.entries)

    def expected(self, entries: Entries, fused: bool) -> tuple[object, ...]:
        if (entries, fused) not in self.known:
            with Editor(self.other, registry=self.registry) as editor:
                for name, scale, enabled in entries:
                    editor.attach(self.stock[name], scale=scale, enabled=enabled)
                if fused:
                    editor.fuse()
                self.known[entries, fused] = seen(self.other)
        return self.known[entries, fused]


def try_sequences(trial: Trial, count: int) -> None:
    @settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(OPERATIONS)
    def run(operations: list[Operation]) -> None:
        trial.run(operations)

    run()


@pytest.fixture(autouse=True)
def any_base(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether an erasure was made for this base is not asked here, and costs more than all the rest."""
    monkeypatch.setattr(fingerprint, "check", lambda *given: fingerprint.Likeness(0.0, 1.0))


def test_the_final_list_alone_counts() -> None:
    registry, pipe = Registry([Plugin()]), slim_pipeline()
    stock = {
        f"{number} {concept}": efface.erase(pipe, concept, anchor="tree", method=toy, registry=registry)
        for number, toy in enumerate(TOYS)
        for concept in ("cat", "dog")
    }
    try_sequences(Trial(slim_pipeline, stock, registry), SEQUENCES)


# The methods that are installed


def conformance() -> dict[str, type[MethodTests]]:
    """The conformance classes of all plugins here, by the name of their method: they have settings that fit fast."""
    found: dict[str, type[MethodTests]] = {}
    for path in sorted(ROOT.glob("*/*/tests/test_conformance.py")):
        spec = importlib.util.spec_from_file_location(f"stacks_{path.parts[-3]}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for one in vars(module).values():
            if isinstance(one, type) and issubclass(one, MethodTests) and one is not MethodTests:
                found.setdefault(f"{one.method} {one.__name__}", one)
    return found


def test_every_installed_method_has_a_conformance_class() -> None:
    assert {one.method for one in conformance().values()} == set(Registry.installed().methods())


def test_the_final_list_alone_counts_for_installed_methods_together() -> None:
    pipe, stock = tiny_pipeline("sd1"), {}
    for name, one in conformance().items():
        for number, request in enumerate((one.request, one.another)):
            stock[f"{name} {number}"] = efface.erase(
                pipe, request.concepts, keep=request.keep, method=one.method, settings=dict(one.settings)
            )
    trial = Trial(lambda: tiny_pipeline("sd1"), stock, Registry.installed())
    try_sequences(trial, max(SEQUENCES // 50, 1))
