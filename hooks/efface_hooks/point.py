"""Hook points: the named, editable places of a loaded pipeline."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from efface_hooks.errors import UnknownPoint, UnsupportedPipeline, listed

PROJECTIONS = {"q": "to_q", "k": "to_k", "v": "to_v", "out": "to_out.0"}
ENCODER_LAYERS = {
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "out": "self_attn.out_proj",
    "fc1": "mlp.fc1",
    "fc2": "mlp.fc2",
}
TEXT_ENCODERS = ("text_encoder", "text_encoder_2")


@dataclass(frozen=True)
class HookPoint:
    """One editable place of a loaded pipeline.

    `name` is public and stable. `path` is the module's dotted path inside `component` ("" for places that are no
    module: skip, mid, text, step). `order` counts all points of the pipeline in forward order, `depth` the blocks of
    one kind from shallow to deep. `in_features` and `out_features` are channels; None where a place has none.
    """

    name: str
    kind: str
    component: str
    path: str
    order: int
    depth: int
    in_features: int | None
    out_features: int | None


def points(pipe: Any, *kinds: str, extra: Iterable[HookPoint] = ()) -> list[HookPoint]:
    """The hook points of a pipeline in forward order, all or those of some kinds.

    `extra` are points that plugins add for other architectures; they come last. A kind ending in ".*" stands for
    all kinds with that beginning. Raises UnsupportedPipeline for a pipeline without a `UNet2DConditionModel`-like
    U-Net, UnknownPoint for a kind that the pipeline does not have.
    """
    own = [*_text_encoder_points(pipe), *_unet_points(component(pipe, "unet"))]
    found = [replace(point, order=order) for order, point in enumerate([*own, *extra])]
    if not kinds:
        return found
    have = sorted({point.kind for point in found})
    for kind in kinds:
        if not any(_is_kind(known, kind) for known in have):
            raise UnknownPoint(f"No hook points of kind {kind!r} on this pipeline; it has: {listed(have, 40)}")
    return [point for point in found if any(_is_kind(point.kind, kind) for kind in kinds)]


def find(pipe: Any, name: str, extra: Iterable[HookPoint] = ()) -> HookPoint:
    """The hook point of that name, listed or any module with a weight (kind `weight`); else UnknownPoint."""
    return find_all(pipe, [name], extra)[0]


def find_all(pipe: Any, names: Iterable[str], extra: Iterable[HookPoint] = ()) -> list[HookPoint]:
    """The hook points of these names, as `find` gives them, from one look at the pipeline."""
    table = {point.name: point for point in points(pipe, extra=extra)}
    return [table[name] if name in table else weight_point(pipe, name, table) for name in names]


def weight_point(pipe: Any, name: str, known: Mapping[str, HookPoint]) -> HookPoint:
    """A module by its path: the listed point that it is, else of kind `weight`; UnknownPoint where there is none."""
    head, _, path = name.partition(".")
    root = component(pipe, head) if head in _components(pipe) and path else None
    module = None if root is None else _submodule(root, path)
    weight = getattr(module, "weight", None)
    if root is None or module is None or weight is None or weight.ndim < 2:
        raise UnknownPoint(_unknown(name, list(known)))
    # Two taps on one module would see each other's work, so a second path to it must not make a second point.
    path = next(path for path, found in root.named_modules() if found is module)
    listed_there = [point for point in known.values() if (point.component, point.path) == (head, path)]
    outs, ins = int(weight.shape[0]), int(weight[0].numel())
    return listed_there[0] if listed_there else HookPoint(name, "weight", head, path, -1, -1, ins, outs)


def component(pipe: Any, name: str) -> nn.Module:
    """A pipeline's U-Net or text encoder, without the wrapper that `torch.compile` puts around it."""
    module = getattr(pipe, name, None)
    if not isinstance(module, nn.Module):
        raise UnsupportedPipeline(f"{type(pipe).__name__} has no {name}: efface edits pipelines with a U-Net")
    return unwrapped(module)


def unwrapped(module: nn.Module) -> nn.Module:
    """The module itself where `torch.compile` returned a wrapper around it."""
    inner = getattr(module, "_orig_mod", None)
    return inner if isinstance(inner, nn.Module) else module


def skip_slices(unet: nn.Module) -> list[tuple[int, int]]:
    """For each up block the half-open range of skip indices that it consumes, in encoder order."""
    counts = [len(block.resnets) for block in _blocks(unet, "up_blocks")]
    ends = [sum(counts[position:]) for position in range(len(counts))]
    return [(end - count, end) for end, count in zip(ends, counts, strict=True)]


def fused_layer(root: nn.Module, path: str) -> str | None:
    """Path of the layer that an attention module calls in place of this one since `fuse_qkv_projections`, if it does.

    A cross-attention keeps its `to_q`. diffusers leaves the fused layers behind when it undoes the fusion, so the
    processor tells.
    """
    parent, _, name = path.rpartition(".")
    attention = _submodule(root, parent)
    if not type(getattr(attention, "processor", None)).__name__.startswith("Fused"):
        return None
    for fused, parts in (("to_qkv", ("to_q", "to_k", "to_v")), ("to_kv", ("to_k", "to_v"))):
        if name in parts and hasattr(attention, fused):
            return f"{parent}.{fused}"
    return None


def text_readers(unet: nn.Module) -> list[str]:
    """Paths of every projection that reads `encoder_hidden_states`: cross-attention keys and values."""
    return [
        f"{path}.{PROJECTIONS[role]}"
        for path, kind, _ in _attentions(unet)
        if kind == "cross_attn"
        for role in ("k", "v")
    ]


def _is_kind(known: str, wanted: str) -> bool:
    return known.startswith(wanted[:-1]) if wanted.endswith(".*") else known == wanted


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"No hook point {name!r} on this pipeline; it has: {listed(known)}.{hint}"


def _components(pipe: Any) -> list[str]:
    return [name for name in (*TEXT_ENCODERS, "unet") if isinstance(getattr(pipe, name, None), nn.Module)]


def _blocks(unet: nn.Module, name: str) -> Any:
    blocks = getattr(unet, name, None)
    if not isinstance(blocks, nn.ModuleList):
        raise UnsupportedPipeline(f"{type(unet).__name__} has no {name}: it is no UNet2DConditionModel")
    return blocks


def _submodule(root: nn.Module, path: str) -> nn.Module | None:
    try:
        return root.get_submodule(path)
    except AttributeError:
        return None


def _text_encoder_points(pipe: Any) -> Iterator[HookPoint]:
    for name in TEXT_ENCODERS:
        if isinstance(getattr(pipe, name, None), nn.Module):
            yield from _encoder_points(name, component(pipe, name))


def _encoder_points(name: str, encoder: nn.Module) -> Iterator[HookPoint]:
    prefix = next((path for path, _ in encoder.named_modules() if path.endswith("encoder.layers")), None)
    if prefix is None:
        return
    for depth in range(len(encoder.get_submodule(prefix))):  # type: ignore[arg-type]
        for role, tail in ENCODER_LAYERS.items():
            path = f"{prefix}.{depth}.{tail}"
            ins, outs = _features(encoder.get_submodule(path))
            yield HookPoint(f"{name}.layers.{depth}.{tail}", f"text_encoder.{role}", name, path, 0, depth, ins, outs)


def _unet_points(unet: nn.Module) -> Iterator[HookPoint]:
    channels = _skip_channels(unet)
    attentions = list(_attentions(unet))
    text = next((attn.to_k.in_features for _, kind, attn in attentions if kind == "cross_attn"), None)
    yield HookPoint("unet.step", "step", "unet", "", 0, 0, None, None)
    yield HookPoint("unet.text", "text", "unet", "", 0, 0, text, text)
    yield from _projection_points(attentions, ("down_blocks",))
    for depth, width in enumerate(channels):
        yield HookPoint(f"unet.skip.{depth}", "skip", "unet", "", 0, depth, width, width)
    yield from _projection_points(attentions, ("mid_block",))
    yield HookPoint("unet.mid", "mid", "unet", "", 0, 0, channels[-1], channels[-1])
    yield from _projection_points(attentions, ("up_blocks",))


def _projection_points(attentions: list[tuple[str, str, Any]], parts: tuple[str, ...]) -> Iterator[HookPoint]:
    depths = {"cross_attn": -1, "self_attn": -1}
    for path, kind, attention in attentions:
        depths[kind] += 1
        if not path.startswith(parts):
            continue
        for role, tail in PROJECTIONS.items():
            ins, outs = _features(attention.get_submodule(tail))
            name = f"{path}.{tail}"
            yield HookPoint(f"unet.{name}", f"{kind}.{role}", "unet", name, 0, depths[kind], ins, outs)


def _attentions(unet: nn.Module) -> Iterator[tuple[str, str, Any]]:
    """Attention modules in forward order: (path, "cross_attn" or "self_attn", module)."""
    for part in ("down_blocks", "mid_block", "up_blocks"):
        root = getattr(unet, part, None)
        if root is None:
            continue
        for path, module in root.named_modules():
            if all(hasattr(module, name) for name in ("to_q", "to_k", "to_v", "to_out")):
                cross = getattr(module, "is_cross_attention", path.endswith("attn2"))
                yield f"{part}.{path}", "cross_attn" if cross else "self_attn", module


def _skip_channels(unet: nn.Module) -> list[int]:
    """Channels of each skip connection in encoder order: conv_in, then every resnet and downsampler."""
    channels = [int(_features(_required(unet, "conv_in"))[1] or 0)]
    for block in _blocks(unet, "down_blocks"):
        widths = [int(resnet.out_channels) for resnet in block.resnets]
        channels += widths + [widths[-1]] * len(getattr(block, "downsamplers", None) or ())
    consumed = sum(len(block.resnets) for block in _blocks(unet, "up_blocks"))
    if consumed != len(channels):
        raise UnsupportedPipeline(
            f"{type(unet).__name__} makes {len(channels)} skip connections and its decoder takes {consumed}"
        )
    return channels


def _required(unet: nn.Module, name: str) -> nn.Module:
    module = getattr(unet, name, None)
    if not isinstance(module, nn.Module):
        raise UnsupportedPipeline(f"{type(unet).__name__} has no {name}: it is no UNet2DConditionModel")
    return module


def _features(module: nn.Module) -> tuple[int | None, int | None]:
    ins = getattr(module, "in_features", getattr(module, "in_channels", None))
    outs = getattr(module, "out_features", getattr(module, "out_channels", None))
    return ins, outs
