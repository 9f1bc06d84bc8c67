"""Tiny pipelines, toy methods that use every verb, and exact pictures of a pipeline's state."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import efface
from efface.testing.bench import fresh
from efface.testing.pipelines import tiny_pipeline
from efface.testing.state import State, marks


def drawn(run: efface.Run, request: efface.Request, name: str, *shape: int) -> Tensor:
    """Small random numbers that differ from seed to seed, concept to concept and name to name."""
    words = "/".join(concept.text for concept in request.concepts)
    return torch.randn(shape, generator=run.generator(stream=f"{words} {name}")) * 0.3


@dataclass(frozen=True)
class Tilt:
    """One low-rank map of the text."""

    name: ClassVar[str] = "tilt"
    covers: ClassVar[efface.Covers] = efface.Covers(kinds=("text",), bypassed_by=("image prompts",))
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {"strong": {"strength": 2.0}}
    strength: float = efface.setting(1.0, min=0, help="how far the text is turned")

    def fit(self, model: efface.Model, request: efface.Request, run: efface.Run) -> efface.Fit:
        width = model.points("text")[0].in_features or 0
        return efface.Fit(
            {
                "up": drawn(run, request, "up", width, 2) * self.strength,
                "down": drawn(run, request, "down", 2, width),
            },
            report={"strength": self.strength},
        )

    def apply(self, patch: efface.Patch, fits: Sequence[efface.Fitted]) -> None:
        for fitted in fits:
            patch.map("unet.text", efface.LowRank(fitted.fit.tensors["up"], fitted.fit.tensors["down"]))


@dataclass(frozen=True)
class Nudge:
    """Changes of weights inside the U-Net: a map and an add at one projection, an add at a convolution."""

    name: ClassVar[str] = "nudge"
    VALUE: ClassVar[str] = "unet.up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_v"
    CONVOLUTION: ClassVar[str] = "unet.mid_block.resnets.0.conv1"

    def fit(self, model: efface.Model, request: efface.Request, run: efface.Run) -> efface.Fit:
        outs, ins = model.weight(self.VALUE).shape
        wide, deep = model.weight(self.CONVOLUTION).flatten(1).shape
        return efface.Fit(
            {
                "map": drawn(run, request, "map", ins, ins) * 0.1,
                "up": drawn(run, request, "up", outs, 1),
                "down": drawn(run, request, "down", 1, ins),
                "kernel": drawn(run, request, "kernel", wide, deep) * 0.1,
            }
        )

    def apply(self, patch: efface.Patch, fits: Sequence[efface.Fitted]) -> None:
        for fitted in fits:
            tensors = fitted.fit.tensors
            patch.map(self.VALUE, efface.Dense(tensors["map"]))
            patch.add(self.VALUE, efface.LowRank(tensors["up"], tensors["down"]))
            patch.add(self.CONVOLUTION, efface.Dense(tensors["kernel"]))


@dataclass(frozen=True)
class Bend:
    """Tensor edits: the input of a projection and the mid tensor."""

    name: ClassVar[str] = "bend"
    QUERY: ClassVar[str] = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"

    def fit(self, model: efface.Model, request: efface.Request, run: efface.Run) -> efface.Fit:
        (mid,) = model.points("mid")
        width = model.weight(self.QUERY).shape[1]
        return efface.Fit(
            {
                "query": drawn(run, request, "query", width),
                "mid": drawn(run, request, "mid", mid.in_features or 0, 1, 1),
            }
        )

    def apply(self, patch: efface.Patch, fits: Sequence[efface.Fitted]) -> None:
        for fitted in fits:
            patch.input(self.QUERY, plus(fitted.fit.tensors["query"]))
            patch.output("unet.mid", plus(fitted.fit.tensors["mid"]))


@dataclass(frozen=True)
class Fade:
    """Skips that grow fainter with the timestep, which a step callback notes for them."""

    name: ClassVar[str] = "fade"

    def fit(self, model: efface.Model, request: efface.Request, run: efface.Run) -> efface.Fit:
        return efface.Fit({"faint": drawn(run, request, "faint", len(model.points("skip"))).abs()})

    def apply(self, patch: efface.Patch, fits: Sequence[efface.Fitted]) -> None:
        patch.step(note_time)
        skips = [point for point in patch.points if point.kind == "skip"]
        for fitted in fits:
            for point, faint in zip(skips, fitted.fit.tensors["faint"], strict=True):
                patch.output(point, fainter(faint))


@dataclass(frozen=True)
class Team:
    """One edit for all of its erasures, which are added up with their scales."""

    name: ClassVar[str] = "team"
    stacks: ClassVar[bool] = True
    OUT: ClassVar[str] = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0"
    size: float = efface.setting(1.0, min=0, help="how much is added")

    def fit(self, model: efface.Model, request: efface.Request, run: efface.Run) -> efface.Fit:
        return efface.Fit({"direction": drawn(run, request, "direction", model.weight(self.OUT).shape[0])})

    def apply(self, patch: efface.Patch, fits: Sequence[efface.Fitted]) -> None:
        directions = torch.stack([fitted.scale * fitted.fit.tensors["direction"] for fitted in fits])
        patch.output(self.OUT, plus(self.size * directions.sum(0)))


@dataclass(frozen=True)
class Word:
    """Changes inside the text encoder."""

    name: ClassVar[str] = "word"
    KEY: ClassVar[str] = "text_encoder.layers.0.self_attn.k_proj"
    LAST: ClassVar[str] = "text_encoder.layers.1.mlp.fc2"

    def fit(self, model: efface.Model, request: efface.Request, run: efface.Run) -> efface.Fit:
        outs, ins = model.weight(self.LAST).shape
        width = model.weight(self.KEY).shape[1]
        return efface.Fit(
            {
                "up": drawn(run, request, "up", outs, 1),
                "down": drawn(run, request, "down", 1, ins),
                "map": drawn(run, request, "map", width, width) * 0.1,
            }
        )

    def apply(self, patch: efface.Patch, fits: Sequence[efface.Fitted]) -> None:
        for fitted in fits:
            tensors = fitted.fit.tensors
            patch.add(self.LAST, efface.LowRank(tensors["up"], tensors["down"]))
            patch.map(self.KEY, efface.Dense(tensors["map"]))


def plus(constant: Tensor) -> Callable[[Tensor, efface.Call], Tensor]:
    return lambda x, call: x + constant.to(x)


def note_time(call: efface.Call) -> None:
    call.memo["time"] = (call.timestep / call.num_train_timesteps).view(-1, 1, 1, 1)


def fainter(faint: Tensor) -> Callable[[Tensor, efface.Call], Tensor]:
    return lambda x, call: x * (1 - faint.to(x) * call.memo["time"].to(x))


TOYS: dict[str, Any] = {toy.name: toy for toy in (Tilt, Nudge, Bend, Fade, Team, Word)}


class ToyPlugin:
    @efface.hookimpl
    def efface_methods(self) -> list[type]:
        return list(TOYS.values())


def modules(pipe: Any) -> Iterator[tuple[str, nn.Module]]:
    for part, root in sorted(pipe.components.items()):
        if isinstance(root, nn.Module):
            for name, module in root.named_modules():
                yield f"{part}.{name}".rstrip("."), module


def hooks_of(pipe: Any) -> Counter[str]:
    """Every hook by module and function, so that a doubled or foreign one shows."""
    return Counter(
        f"{name} {table} {getattr(hook, '__qualname__', type(hook).__qualname__)}"
        for name, module in modules(pipe)
        for table in ("_forward_pre_hooks", "_forward_hooks")
        for hook in getattr(module, table).values()
    )


def latents_of(pipe: Any, *prompts: str, steps: int = 1) -> Tensor:
    texts = list(prompts) or ["a cat", "a red dog by van gogh"]
    found: Tensor = pipe(
        texts,
        num_inference_steps=steps,
        generator=[torch.Generator().manual_seed(number) for number in range(len(texts))],
        output_type="latent",
    ).images
    return found


@pytest.fixture(scope="session")
def toys() -> Mapping[str, Any]:
    """The toy methods by name."""
    return TOYS


@pytest.fixture(scope="session")
def registry() -> efface.Registry:
    return efface.Registry([ToyPlugin()])


@pytest.fixture(scope="session")
def hooks() -> Callable[[Any], Counter[str]]:
    return hooks_of


@pytest.fixture(scope="session")
def state() -> Callable[[Any], State]:
    return State.of


@pytest.fixture(scope="session")
def weights() -> Callable[[Any], tuple[tuple[str, str], ...]]:
    return lambda pipe: tuple(State.of(pipe).weights.items())


@pytest.fixture(scope="session")
def latents() -> Callable[..., Tensor]:
    return latents_of


@dataclass
class Shared:
    pipe: Any
    state: State
    marks: tuple[object, ...]

    def check(self) -> None:
        now = marks(self.pipe)
        if now != self.marks:
            changed = self.state.changed(dataclasses.replace(State.of(self.pipe), random=self.state.random))
            assert not changed, f"this test left a shared pipeline changed: {changed}"
            self.marks = now


@pytest.fixture(scope="session")
def _shared() -> dict[str, Shared]:
    return {}


@pytest.fixture
def shared(_shared: dict[str, Shared]) -> Iterator[Callable[[str], Any]]:
    """Pipelines by family that all tests share: whoever leaves one changed fails."""

    def get(family: str) -> Any:
        if family not in _shared:
            pipe = fresh(family)  # type: ignore[arg-type]
            _shared[family] = Shared(pipe, State.of(pipe), marks(pipe))
        used.add(family)
        return _shared[family].pipe

    used: set[str] = set()
    rng = torch.get_rng_state()
    yield get
    torch.set_rng_state(rng)
    for family in used:
        lent = _shared.pop(family)
        lent.check()
        _shared[family] = lent


@pytest.fixture
def pipe(shared: Callable[[str], Any]) -> Any:
    return shared("sd1")


@pytest.fixture
def project_text(pipe: Any) -> Iterator[Callable[[], None]]:
    """Makes the shared U-Net project its text; afterwards that attribute is plain again, as it was."""

    def project() -> None:
        pipe.unet.encoder_hid_proj = torch.nn.Identity()

    yield project
    del pipe.unet.encoder_hid_proj
    pipe.unet.encoder_hid_proj = None


@pytest.fixture(scope="session")
def erasures(registry: efface.Registry) -> Mapping[str, efface.Erasure]:
    """One erasure of "cat" by every toy method, by its name; "tilt dog", "team dog" and so on are of "dog"."""
    pipe = tiny_pipeline("sd1")
    return {
        name + suffix: efface.erase(pipe, concept, anchor="tree", method=name, registry=registry)
        for concept, suffix in (("cat", ""), ("dog", " dog"))
        for name in TOYS
    }
