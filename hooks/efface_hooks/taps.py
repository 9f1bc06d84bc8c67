"""Taps: the hooks on one module, built from all edits at its point."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn

from efface_hooks.call import Call, current, running
from efface_hooks.delta import Delta, LowRank, total
from efface_hooks.errors import BadEdit, EditLost
from efface_hooks.patch import Edit, TensorEdit


class Factors:
    """A delta kept in float32 or wider, moved once to each device and width it is used on."""

    def __init__(self, delta: Delta) -> None:
        self.delta = delta
        self._placed: dict[tuple[torch.device, torch.dtype], tuple[Tensor, ...]] = {}

    def times(self, x: Tensor) -> Tensor:
        """Delta x for x (..., d) that is float32 or wider: (..., m)."""
        for factor in self.at(x):
            x = x @ factor.T
        return x

    def at(self, x: Tensor) -> tuple[Tensor, ...]:
        """The factors in the order they are applied, on x's device and in its dtype."""
        key = (x.device, x.dtype)
        if key not in self._placed:
            delta = self.delta
            factors = (delta.down, delta.up) if isinstance(delta, LowRank) else (delta.weight,)
            self._placed[key] = tuple(factor.detach().to(x.device, x.dtype) for factor in factors)
        return self._placed[key]


class ModuleTap:
    """The edits at one projection or weight: a forward pre-hook, a forward hook, or both.

    Maps and adds are each summed into one delta, both computed from the same unedited input.
    """

    def __init__(self, name: str, edits: Sequence[Edit]) -> None:
        self.name = name
        self.mapped = factors(edits, "map")
        self.added = factors(edits, "add")
        self.inputs = callables(edits, "input")
        self.outputs = callables(edits, "output")
        self._unedited: dict[ModuleTap, Tensor] = {}

    @property
    def edits_input(self) -> bool:
        return bool(self.mapped or self.inputs)

    @property
    def hooks(self) -> tuple[str, ...]:
        """Which of `before` and `after` have something to do, and so must run in every pass."""
        edits = {"before": self.edits_input, "after": bool(self.added or self.outputs)}
        return tuple(hook for hook, needed in edits.items() if needed)

    def before(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        call = fired(self.name, "before")
        x = args[0]
        if self.added:
            self._kept(call)[self] = x
        return (run_edits(self.name, self.inputs, mapped(x, self.mapped), call), *args[1:])

    def after(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        call = fired(self.name, "after")
        if self.added:
            x = self._kept(call).pop(self) if self.edits_input else args[0]
            output = changed(output, layer_change(module), x, self.added)
        return run_edits(self.name, self.outputs, output, call)

    def _kept(self, call: Call | None) -> dict[Any, Any]:
        """Where the unedited input waits for the output: in the call, so that threads do not mix."""
        return self._unedited if call is None else call.memo


class DecoderTap:
    """The edits of skips and of the mid tensor where one up block takes them in.

    The decoder side is the only place where `skip.0` can be edited without changing the encoder, and where
    residuals of a ControlNet are already in.
    """

    hooks = ("before",)

    def __init__(self, name: str, start: int, skips: Mapping[int, Sequence[Edit]], mid: Sequence[Edit]) -> None:
        self.name = name
        self.start = start
        self.skips = {index: callables(edits, "output") for index, edits in skips.items()}
        self.mid = callables(mid, "output")

    def before(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        call = fired(self.name, "before")
        names = ("hidden_states", "res_hidden_states_tuple")
        named = dict(zip(names, args, strict=False)) | kwargs
        named["hidden_states"] = run_edits("unet.mid", self.mid, named["hidden_states"], call)
        named["res_hidden_states_tuple"] = tuple(
            run_edits(f"unet.skip.{index}", self.skips.get(index, ()), skip, call)
            for index, skip in enumerate(named["res_hidden_states_tuple"], self.start)
        )
        return (*(named.pop(name) for name in names[: len(args)]), *args[2:]), named


class FusedTap:
    """Lets the layers that `fuse_qkv_projections` has put together compute the parts that are edited.

    The fused layer's weight is a copy of theirs. Each of them carries its own tap, so its part of the output is what
    the layer itself makes of the input.
    """

    hooks = ("after",)

    def __init__(self, name: str, layers: Sequence[nn.Module | None]) -> None:
        self.name = name
        self.layers = tuple(layers)

    def after(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        fired(self.name, "after")
        parts = output.chunk(len(self.layers), -1)
        pairs = zip(self.layers, parts, strict=True)
        return torch.cat([part if layer is None else layer(*args) for layer, part in pairs], -1)


def fired(tap: str, hook: str) -> Call | None:
    """The pass that is running, with a mark that this hook of this tap ran in it."""
    call = current()
    if call is not None:
        call.fired.add((tap, hook))
    return call


def factors(edits: Sequence[Edit], verb: str) -> Factors | None:
    """All deltas of a verb as one, scaled."""
    delta = total([edit.what.wide().scaled(edit.scale) for edit in edits if edit.verb == verb])
    return None if delta is None else Factors(delta)


def callables(edits: Sequence[Edit], verb: str) -> tuple[TensorEdit, ...]:
    return tuple(mixed(edit.what, edit.scale) for edit in edits if edit.verb == verb)


def mixed(edit: TensorEdit, scale: float) -> TensorEdit:
    """x + s (edit(x) - x), and the edit itself at s = 1."""
    if scale == 1.0:
        return edit

    def scaled(x: Tensor, call: Call) -> Tensor:
        return x + scale * (edit(x, call) - x)

    return scaled


def mapped(x: Tensor, change: Factors | None) -> Tensor:
    """x + E x, computed in float32 or wider and cast back."""
    if change is None:
        return x
    with full_precision(x):
        broad = wide(x)
        return (broad + change.times(broad)).to(x.dtype)


def changed(output: Tensor, change: Callable[[Tensor, Factors], Tensor], x: Tensor, added: Factors) -> Tensor:
    """The output plus Delta x, computed in float32 or wider and cast back."""
    with full_precision(output):
        return (wide(output) + change(wide(x), added)).to(output.dtype)


def run_edits(point: str, edits: Sequence[TensorEdit], x: Tensor, call: Call | None) -> Tensor:
    """The tensor after edits in order. A callable edit needs to know its pass; without one it cannot act."""
    for edit in edits:
        if call is None:
            raise EditLost(point, "its layer runs outside of a pass of the whole model", "Call the model itself.")
        with running(call):
            edited = edit(x, call)
        if not isinstance(edited, Tensor) or edited.shape != x.shape:
            got = tuple(edited.shape) if isinstance(edited, Tensor) else type(edited).__name__
            raise BadEdit(f"The edit at {point} returned {got} for a tensor of shape {tuple(x.shape)}")
        x = edited.to(x.dtype)
    return x


def wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def full_precision(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Autocast off: it would run the factors in half precision."""
    if torch.is_autocast_enabled(x.device.type):
        return torch.autocast(x.device.type, enabled=False)
    return contextlib.nullcontext()


def layer_change(module: nn.Module) -> Callable[[Tensor, Factors], Tensor]:
    """How a change of this layer's weight acts on its input; BadEdit for a layer that is not linear."""
    layer = getattr(module, "base_layer", module)
    if isinstance(layer, nn.Conv2d):
        if layer.groups != 1 or layer.padding_mode != "zeros":
            raise BadEdit("add works on convolutions with one group and zero padding")
        return lambda x, change: _convolved(layer, x, change)
    if isinstance(layer, nn.Linear) or hasattr(layer, "in_features"):
        return lambda x, change: change.times(x)
    raise BadEdit(f"add works on linear layers and convolutions, not on {type(layer).__name__}")


def _convolved(layer: nn.Conv2d, x: Tensor, change: Factors) -> Tensor:
    first, *rest = change.at(x)
    kernel = first.view(first.shape[0], layer.in_channels, *layer.kernel_size)
    y = F.conv2d(x, kernel, None, layer.stride, layer.padding, layer.dilation)
    for factor in rest:
        y = F.conv2d(y, factor[..., None, None])
    return y
