"""The guard: opens a `Call` for every pass, and makes sure that every edit is in place before it and acts in it.

An edit that is silently off is an error, not a picture. An edit whose layer got an adapter around it, lost one, or is
computed by a fused layer now, follows its layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from efface_hooks.call import Call, UNetInputs, begin, end, running
from efface_hooks.errors import BypassedError, Displaced, EditLost
from efface_hooks.point import fused_layer, unwrapped
from efface_hooks.taps import FusedTap, callables, factors, mapped, run_edits

if TYPE_CHECKING:
    from efface_hooks.plan import Socket
    from efface_hooks.wiring import Wiring

REATTACH = "Call editor.reattach()."
REMOVED = "its hook was removed from the module"
PROMPT_EMBEDS = "prompt_embeds"
TEXT = "unet.text"


class Opener:
    """The U-Net's pre-hook: opens the call, checks, runs step callbacks and the edits of the text."""

    def __init__(self, wiring: Wiring) -> None:
        edits = wiring.plan.at_unet
        self.wiring = wiring
        self.steps = tuple(edit.what for edit in edits if edit.verb == "step")
        self.mapped = factors(edits, "map")
        self.outputs = callables(edits, "output")

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        call = Call("unet", self.wiring.origins)
        begin(call)
        check_places(self.wiring)
        call._unet = UNetInputs(args, kwargs, self.wiring.num_train_timesteps())
        check_embeddings(self.wiring, call)
        with running(call):
            for step in self.steps:
                step(call)
        if not (self.mapped or self.outputs):
            return None
        text = run_edits(TEXT, self.outputs, mapped(call.text, self.mapped), call)
        if len(args) > 2:
            return (*args[:2], text, *args[3:]), kwargs
        return args, kwargs | {"encoder_hidden_states": text}


class Closer:
    """A model's hook, called also after an exception (output None): closes the call, checks that all edits acted."""

    def __init__(self, wiring: Wiring, part: str) -> None:
        self.wiring = wiring
        self.part = part

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        call = end()
        if output is None:
            return
        if call is None:
            raise EditLost(self.part, REMOVED, REATTACH)
        check_acted(self.wiring, call, self.part)
        if self.part != "unet":
            self.wiring.origins.record(self.part, call.ids, output, _last_norm(module), _dtype(self.wiring.unet))


class EncoderOpener:
    """A text encoder's pre-hook: opens a call that knows the token ids."""

    def __init__(self, wiring: Wiring, part: str) -> None:
        self.wiring = wiring
        self.part = part

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        call = Call(self.part, self.wiring.origins)
        begin(call)
        call._ids = args[0] if args else kwargs.get("input_ids")
        check_places(self.wiring)


def lost_edits(wiring: Wiring) -> Iterator[EditLost]:
    """Edits whose module is no longer where its point says, is not called there, or has lost its hook."""
    if wiring.orphaned:
        yield EditLost(
            "unet", "its model was copied without its pipeline", "Copy the pipeline that was edited, or detach before."
        )
        return
    pipe = wiring.pipe()
    unet = getattr(pipe, "unet", None)
    if pipe is not None and (not isinstance(unet, nn.Module) or unwrapped(unet) is not wiring.unet):
        yield EditLost("unet", "pipe.unet was replaced", "Make a new Editor on the pipeline as it is now.")
    yield from _lost_sockets(wiring)
    yield from _lost_writing(wiring)
    for name in wiring.unhooked():
        yield EditLost(name, REMOVED, REATTACH)


def check_places(wiring: Wiring) -> None:
    """Let displaced edits follow their layers; raise the first reason why an edit would not act in this pass."""
    if next(lost_edits(wiring), None) is not None:
        wiring.settle()


def check_embeddings(wiring: Wiring, call: Call) -> None:
    """Raise BypassedError when embeddings do not come from the text encoder as it is edited now."""
    if PROMPT_EMBEDS in wiring.allow:
        return
    for name in sorted(wiring.plan.encoders):
        if wiring.origins.stale(call._cache, name):
            raise BypassedError(
                wiring.plan.encoders[name],
                f"these prompt embeddings were not made by {name} as it is edited now",
                f"Encode the prompt after attaching, or allow it by name: Editor(..., allow=({PROMPT_EMBEDS!r},)).",
            )


def check_acted(wiring: Wiring, call: Call, part: str) -> None:
    """Raise for an edit whose module was not called during the pass."""
    for socket in wiring.plan.sockets:
        place, tap = socket.place, socket.tap
        if place.component == part and any((tap.name, hook) not in call.fired for hook in tap.hooks):
            raise _lost(wiring, socket) or EditLost(
                place.name,
                f"its layer's hook did not run in this pass of {part}: a torch.compile made before attaching ignores "
                "hooks, other code may have skipped or replaced the layer",
                "Attach before compiling, or call torch.compiler.reset() and generate again.",
            )


def _lost_sockets(wiring: Wiring) -> Iterator[EditLost]:
    for socket in wiring.plan.sockets:
        lost = _lost(wiring, socket)
        if lost is not None:
            yield lost


def _lost(wiring: Wiring, socket: Socket) -> EditLost | None:
    place, root = socket.place, wiring.root(socket.place.component)
    found = _found(root, place.path)
    if found is not place.module:
        # A fused layer is made anew each time; what it stands for has a socket of its own.
        follows = isinstance(socket.tap, FusedTap) or (
            found is not None and innermost(found) is innermost(place.module)
        )
        return (Displaced if follows else EditLost)(place.name, _replacement(found, place.module), REATTACH)
    if root is not None and (fused_layer(root, place.path) is not None) != socket.fused:
        return Displaced(place.name, "fuse_qkv_projections() put another layer in place of its own", REATTACH)
    return None


def _lost_writing(wiring: Wiring) -> Iterator[EditLost]:
    """A change in a weight reaches what goes through that weight, and an adapter's share does not."""
    for place in wiring.plan.written:
        found = _found(wiring.root(place.component), place.path)
        if found is not place.module:
            cause = f"{_replacement(found, place.module)}, and it is fused into the weight that was there"
            yield EditLost(place.name, cause, "Call editor.unfuse(), or take the adapter off.")


def _found(root: nn.Module | None, path: str) -> nn.Module | None:
    """The module at a path, None where the path ends early."""
    module: nn.Module | None = root
    for name in path.split("."):
        module = None if module is None else module._modules.get(name)
    return module


def innermost(module: nn.Module) -> nn.Module:
    """The layer itself, without the adapters (LoRA) around it."""
    while isinstance(base := getattr(module, "base_layer", None), nn.Module):
        module = base
    return module


def _replacement(found: nn.Module | None, tapped: nn.Module) -> str:
    if found is None:
        return "its module is gone from the model"
    if found is innermost(tapped):
        return "the adapter (LoRA) around its layer was unloaded after attaching"
    if innermost(found) is innermost(tapped):
        return "an adapter (LoRA) was loaded around its layer after attaching"
    return "its layer was replaced by another module after attaching"


def _last_norm(encoder: nn.Module) -> Callable[[Tensor], Tensor]:
    names = [path for path, _ in encoder.named_modules() if path.endswith("final_layer_norm")]
    norm: Callable[[Tensor], Tensor] = encoder.get_submodule(names[0]) if names else nn.Identity()
    return norm


def _dtype(model: nn.Module) -> torch.dtype:
    return next((weight.dtype for weight in model.parameters() if weight.is_floating_point()), torch.float32)
