"""Tiny pipelines, and the few verbs that the tests of the hooks are written in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from efface.testing.pipelines import FAMILIES, tiny_pipeline
from efface_hooks import Dense, HookPoint, LowRank, Patch, Wiring, current, points

HOOK_TABLES = (
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_backward_pre_hooks",
    "_backward_hooks",
)
PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")

_lent: dict[tuple[str, torch.dtype], Any] = {}


def parts(pipe: Any) -> dict[str, nn.Module]:
    return {name: module for name in PARTS if (module := getattr(pipe, name, None)) is not None}


def hook_counts(pipe: Any) -> dict[str, list[int]]:
    """How many entries each table of hooks has, for every module of the pipeline."""
    return {
        f"{part} {path}": [len(getattr(module, table)) for table in HOOK_TABLES]
        for part, root in parts(pipe).items()
        for path, module in root.named_modules()
    }


def weight_bytes(pipe: Any) -> dict[str, str]:
    """A digest of every tensor of every state dict, under its key."""
    return {
        f"{part} {key}": hashlib.sha256(tensor.detach().contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()
        for part, root in parts(pipe).items()
        for key, tensor in root.state_dict().items()
    }


def bones(pipe: Any) -> dict[str, Any]:
    """What no test may leave changed: every module, its hooks, its `forward`, and whether a weight was written."""
    modules = [
        (part, path, id(module), "forward" in vars(module), module.training)
        for part, root in parts(pipe).items()
        for path, module in root.named_modules()
    ]
    weights = [(id(weight), weight._version) for root in parts(pipe).values() for weight in root.parameters()]
    return {"modules": modules, "weights": weights, "hooks": hook_counts(pipe), "call": current()}


def warm(pipe: Any) -> Any:
    """The pipeline after a first pass: transformers puts hooks of its own on a text encoder that shall return its
    hidden states, and leaves them there."""
    for name in ("text_encoder", "text_encoder_2"):
        if hasattr(pipe, name):
            getattr(pipe, name)(torch.zeros(1, 16, dtype=torch.int64), output_hidden_states=True)
    return pipe


def lend(family: str, dtype: torch.dtype = torch.float32) -> Iterator[Any]:
    """A pipeline shared by all tests; a test that leaves a trace on it fails."""
    key = (family, dtype)
    pipe = _lent.pop(key, None) or warm(tiny_pipeline(family, dtype=dtype))  # type: ignore[arg-type]
    before = bones(pipe)
    yield pipe
    if (wiring := Wiring.of(pipe)) is not None:
        wiring.clear()
    assert bones(pipe) == before
    _lent[key] = pipe


@pytest.fixture(params=FAMILIES)
def pipe(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A tiny pipeline of each family."""
    yield from lend(request.param)


@pytest.fixture
def sd1() -> Iterator[Any]:
    yield from lend("sd1")


@pytest.fixture
def sdxl() -> Iterator[Any]:
    yield from lend("sdxl")


@pytest.fixture(params=FAMILIES)
def exact(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A tiny pipeline of each family in float64, where two ways to one result agree to 1e-12."""
    yield from lend(request.param, torch.float64)


@pytest.fixture
def exact_sd1() -> Iterator[Any]:
    yield from lend("sd1", torch.float64)


@pytest.fixture
def slim() -> Any:
    """A fresh pipeline whose U-Net has one down block and one up block: fast, and free to be taken apart."""
    return slim_pipeline()


@pytest.fixture
def fresh() -> Callable[..., Any]:
    """fresh(family="sd1", dtype=...): a pipeline that a test may take apart."""
    return lambda *family, **options: warm(tiny_pipeline(*family, **options))


@pytest.fixture
def fresh_slim() -> Callable[..., Any]:
    return slim_pipeline


def slim_pipeline(dtype: torch.dtype = torch.float32) -> Any:
    from diffusers import UNet2DConditionModel

    pipe = tiny_pipeline("sd1", dtype=dtype)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        pipe.unet = UNet2DConditionModel(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            norm_num_groups=4,
            layers_per_block=1,
            block_out_channels=(8,),
            down_block_types=("CrossAttnDownBlock2D",),
            up_block_types=("UpBlock2D",),
            attention_head_dim=2,
            cross_attention_dim=16,
        )
    pipe.unet.eval()
    for parameter in pipe.unet.parameters():
        parameter.data = parameter.data.to(dtype)
    return warm(pipe)


@contextmanager
def attached(pipe: Any, *patches: Patch, **options: Any) -> Iterator[Wiring]:
    """The wiring of these patches, on the pipeline for the length of a block."""
    wiring = Wiring(pipe, **options)
    wiring.set(patches)
    try:
        yield wiring
    finally:
        wiring.clear()


def patch_with(pipe: Any, verb: str, point: str | HookPoint, what: Any, scale: float = 1.0) -> Patch:
    """A patch of one edit."""
    patch = Patch(pipe, scale=scale)
    if verb == "step":
        patch.step(what)
    else:
        getattr(patch, verb)(point, what)
    return patch


def seeing(pipe: Any, look: Callable[[Any], Any]) -> tuple[Patch, list[Any]]:
    """A patch that looks at every U-Net call, and the list of what it saw."""
    seen: list[Any] = []
    return patch_with(pipe, "step", "unet.step", lambda call: seen.append(look(call))), seen


def picture(pipe: Any, prompt: Any = "a cat", *, steps: int = 2, seed: int = 0, **options: Any) -> Tensor:
    """The latents of a generated picture, (B, 4, 8, 8)."""
    options.setdefault("generator", torch.Generator().manual_seed(seed))
    latents: Tensor = pipe(prompt, num_inference_steps=steps, output_type="latent", **options).images
    return latents


def inputs(pipe: Any, batch: int = 2, seed: int = 0, **changes: Any) -> dict[str, Any]:
    """Arguments of one U-Net call; changes replace or add some."""
    unet = pipe.unet
    weight = unet.conv_in.weight
    draw = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(batch, *shape, generator=draw, dtype=torch.float64).to(weight.dtype)

    given: dict[str, Any] = {
        "sample": drawn(4, 8, 8),
        "timestep": 7,
        "encoder_hidden_states": drawn(16, unet.config.cross_attention_dim),
    }
    if unet.config.addition_embed_type == "text_time":
        given["added_cond_kwargs"] = {"text_embeds": drawn(24), "time_ids": drawn(6).abs()}
    return given | changes


@torch.no_grad()
def predict(pipe: Any, **changes: Any) -> Tensor:
    """The noise that the U-Net predicts in one call, hooks and all."""
    noise: Tensor = pipe.unet(**inputs(pipe, **changes)).sample
    return noise


@torch.no_grad()
def predict_with(pipe: Any, weights: dict[str, Tensor], **changes: Any) -> Tensor:
    """The noise that a U-Net with these weights would predict: an edit made by hand."""
    assert Wiring.of(pipe) is None
    noise: Tensor = functional_call(pipe.unet, weights, kwargs=inputs(pipe, **changes)).sample
    return noise


def dense(rows: int, columns: int, seed: int = 0, size: float = 0.5, dtype: torch.dtype = torch.float64) -> Dense:
    return Dense(_drawn(rows, columns, seed, size, dtype))


def lowrank(rows: int, columns: int, seed: int = 0, size: float = 0.5, dtype: torch.dtype = torch.float64) -> LowRank:
    return LowRank(_drawn(rows, 2, seed, size, dtype), _drawn(2, columns, seed + 1000, 1.0, dtype))


def _drawn(rows: int, columns: int, seed: int, size: float, dtype: torch.dtype) -> Tensor:
    return (torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * size).to(dtype)


def square(point: HookPoint, seed: int = 0, **options: Any) -> Dense:
    """A dense map for the input of a point."""
    return dense(point.in_features or 0, point.in_features or 0, seed, **options)


def oblong(point: HookPoint, seed: int = 0, **options: Any) -> Dense:
    """A dense change of a point's weight."""
    return dense(point.out_features or 0, point.in_features or 0, seed, **options)


def one(pipe: Any, kind: str, index: int = 0) -> HookPoint:
    """One hook point of a kind."""
    return points(pipe, kind)[index]


def at(pipe: Any, point: HookPoint) -> nn.Module:
    module: nn.Module = getattr(pipe, point.component).get_submodule(point.path)
    return module


def every_verb(pipe: Any) -> list[Patch]:
    """Three patches that use every verb, at every sort of place."""

    def at_(kind: str, index: int = 0) -> HookPoint:
        return one(pipe, kind, index)

    first, second, third = Patch(pipe), Patch(pipe, scale=0.5), Patch(pipe)
    first.step(lambda call: None)
    text = at_("text")
    width = text.in_features or 0
    first.map(text, lowrank(width, width, 1, dtype=torch.float32))
    first.map(at_("cross_attn.k"), square(at_("cross_attn.k"), 2, dtype=torch.float32))
    first.add(at_("cross_attn.v"), oblong(at_("cross_attn.v"), 3, dtype=torch.float32))
    first.input(at_("cross_attn.q"), lambda x, call: x + 0.5)
    first.output(at_("cross_attn.out"), lambda x, call: x * 2)
    second.map(at_("cross_attn.k"), square(at_("cross_attn.k"), 4, dtype=torch.float32))
    second.output("unet.skip.0", lambda x, call: x * 2)
    second.output("unet.mid", lambda x, call: x - 0.5)
    second.output("unet.text", lambda x, call: x * 1.5)
    third.add("unet.conv_in", dense(8, 36, 5, dtype=torch.float32))
    fc2 = at_("text_encoder.fc2")
    third.add(fc2, oblong(fc2, 6, dtype=torch.float32))
    third.output(at_("text_encoder.v"), lambda x, call: x * 2)
    return [first, second, third]


@pytest.fixture
def do() -> SimpleNamespace:
    """The verbs above, for test modules: pytest's importlib mode lets them import nothing from here."""
    return SimpleNamespace(
        at=at,
        attached=attached,
        bones=bones,
        dense=dense,
        every_verb=every_verb,
        hook_counts=hook_counts,
        inputs=inputs,
        lowrank=lowrank,
        oblong=oblong,
        one=one,
        patch=patch_with,
        picture=picture,
        predict=predict,
        predict_with=predict_with,
        seeing=seeing,
        square=square,
        weight_bytes=weight_bytes,
    )
