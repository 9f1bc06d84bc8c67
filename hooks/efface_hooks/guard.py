"""The guard: opens a `Call` for every pass, and makes sure that every edit is in place before it and acts in it.

An edit that is silently off is an error, not a picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from efface_hooks.call import Call, UNetInputs, begin, end, running
from efface_hooks.errors import BypassedError, EditLost
from efface_hooks.point import unwrapped
from efface_hooks.taps import callables, factors, mapped, run_edits

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
    pipe = wiring.pipe()
    unet = getattr(pipe, "unet", None)
    if pipe is not None and (not isinstance(unet, nn.Module) or unwrapped(unet) is not wiring.unet):
        yield EditLost("unet", "pipe.unet was replaced", "Make a new Editor on the pipeline as it is now.")
    for socket in wiring.plan.sockets:
        lost = _lost(wiring, socket)
        if lost is not None:
            yield lost
    for name in wiring.unhooked():
        yield EditLost(name, REMOVED, REATTACH)


def check_places(wiring: Wiring) -> None:
    """Raise the first reason why an edit would not act in the pass that begins."""
    for lost in lost_edits(wiring):
        raise lost


def check_embeddings(wiring: Wiring, call: Call) -> None:
    """Raise BypassedError when embeddings do not come from the text encoder as it is edited now."""
    if PROMPT_EMBEDS in wiring.allow:
        return
    for name in sorted(wiring.plan.encoders):
        if wiring.origins.stale(call._cache, name):
            raise BypassedError(
                next(socket.tap.name for socket in wiring.plan.sockets if socket.component == name),
                f"these prompt embeddings were not made by {name} as it is edited now",
                f"Encode the prompt after attaching, or allow it by name: Editor(..., allow=({PROMPT_EMBEDS!r},)).",
            )


def check_acted(wiring: Wiring, call: Call, part: str) -> None:
    """Raise for an edit whose module was not called during the pass."""
    for socket in wiring.plan.sockets:
        if socket.component == part and any((socket.tap.name, hook) not in call.fired for hook in socket.tap.hooks):
            raise _lost(wiring, socket) or EditLost(
                socket.tap.name,
                f"its layer's hook did not run in this pass of {part}: a torch.compile made before attaching ignores "
                "hooks, other code may have skipped or replaced the layer",
                "Attach before compiling, or call torch.compiler.reset() and generate again.",
            )


def _lost(wiring: Wiring, socket: Socket) -> EditLost | None:
    name = socket.tap.name
    found, parent = _walk(wiring.root(socket.component), socket.path)
    if found is not socket.module:
        return EditLost(name, _replacement(found, socket.module), REATTACH)
    if is_fused(parent, socket.path):
        return EditLost(name, "fuse_qkv_projections() bypasses its layer", "Call pipe.unet.unfuse_qkv_projections().")
    return None


def _walk(root: nn.Module | None, path: str) -> tuple[nn.Module | None, nn.Module | None]:
    """The module at a path and its parent, (None, None) where the path ends early."""
    module: nn.Module | None = root
    parent: nn.Module | None = None
    for name in path.split("."):
        if module is None:
            return None, None
        module, parent = module._modules.get(name), module
    return module, parent


def is_fused(attention: nn.Module | None, path: str) -> bool:
    """Whether `fuse_qkv_projections` makes an attention module leave out its layer at this path."""
    if not type(getattr(attention, "processor", None)).__name__.startswith("Fused"):
        return False
    return path.endswith((".to_k", ".to_v")) or (path.endswith(".to_q") and hasattr(attention, "to_qkv"))


def _replacement(found: nn.Module | None, tapped: nn.Module) -> str:
    if found is None:
        return "its module is gone from the model"
    if getattr(found, "base_layer", None) is tapped:
        return "an adapter (LoRA) was loaded around its layer after attaching"
    if getattr(tapped, "base_layer", None) is found:
        return "the adapter (LoRA) around its layer was unloaded after attaching"
    return "its layer was replaced by another module after attaching"


def _last_norm(encoder: nn.Module) -> Callable[[Tensor], Tensor]:
    names = [path for path, _ in encoder.named_modules() if path.endswith("final_layer_norm")]
    norm: Callable[[Tensor], Tensor] = encoder.get_submodule(names[0]) if names else nn.Identity()
    return norm


def _dtype(model: nn.Module) -> torch.dtype:
    return next((weight.dtype for weight in model.parameters() if weight.is_floating_point()), torch.float32)
