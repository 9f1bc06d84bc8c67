"""The hooks on one U-Net and its text encoders: exactly what a list of patches asks for.

torch forward hooks only, because they stack, come off in any order and leave `forward`, attention processors and
weights alone.
"""

from __future__ import annotations

import copy
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import Any

from torch import nn

from efface_hooks.call import drop
from efface_hooks.errors import AlreadyEdited, BadEdit, Displaced, EditLost, HookError
from efface_hooks.guard import PROMPT_EMBEDS, Closer, EncoderOpener, Opener, lost_edits
from efface_hooks.origins import Origins
from efface_hooks.patch import Patch
from efface_hooks.plan import Place, Plan, Socket, planned
from efface_hooks.point import TEXT_ENCODERS, component, unwrapped
from efface_hooks.taps import DecoderTap, ModuleTap


class Wiring:
    """The edits on one pipeline's U-Net and text encoders.

    `set(patches)` makes the hooks a function of that list alone, or leaves everything as it was and raises.
    `owner` is whoever holds this wiring (an Editor). `allow=("prompt_embeds",)` lets precomputed embeddings pass
    although a text encoder is edited.
    """

    def __init__(self, pipe: Any, owner: object = None, allow: Iterable[str] = ()) -> None:
        self.unet = component(pipe, "unet")
        self.owner = owner
        self.allow = frozenset(allow)
        if unknown := self.allow - {PROMPT_EMBEDS}:
            raise BadEdit(f"Cannot allow {', '.join(sorted(unknown))}; what can be allowed: {PROMPT_EMBEDS}")
        self.pipe = weakref.ref(pipe)
        self.plan = Plan()
        self.patches: tuple[Patch, ...] = ()
        self.origins = Origins()
        self.orphaned = False
        """Whether this came about with a copy of a model that was made without the pipeline."""
        self._encoders: dict[str, nn.Module] = {}
        self._hooks: list[tuple[str, nn.Module, Any]] = []
        self._guards = 0
        self._settling = threading.RLock()

    @staticmethod
    def of(pipe: Any) -> Wiring | None:
        """The wiring that is on a pipeline's U-Net, if there is one."""
        return next((hook.wiring for hook in _hooks(component(pipe, "unet")) if isinstance(hook, Opener)), None)

    def __deepcopy__(self, memo: dict[int, Any]) -> Wiring:
        """A copy of the whole pipeline has edits of its own; a model that is copied without it paints no picture."""
        pipe = memo.get(id(self.pipe()))
        twin = memo[id(self)] = copy.copy(self)
        twin.origins, twin._settling = Origins(), threading.RLock()
        if pipe is None:
            twin.orphaned, twin.owner, twin._hooks = True, None, []
            return twin
        twin.pipe = weakref.ref(pipe)
        for name in ("unet", "owner", "plan", "patches", "_encoders", "_hooks"):
            setattr(twin, name, copy.deepcopy(getattr(self, name), memo))
        return twin

    def set(self, patches: Sequence[Patch]) -> None:
        """Take everything off and put this list on; on any failure the former list is back."""
        self.require_free()
        self._change(planned(self.require_pipe(), patches), tuple(patches))

    def hold(self, written: Sequence[Place] = ()) -> None:
        """Take every edit off and leave only the guard on: the U-Net stays marked as this owner's.

        `written` are the layers whose weights hold the edits meanwhile; the guard sees to it that they are used.
        """
        self._change(Plan(written=tuple(written)), (), held=True)

    def clear(self) -> None:
        """Take every hook off."""
        self._change(Plan(), ())

    def verify(self) -> list[EditLost]:
        """What would keep edits from acting, as the errors that the next generation raises; empty when all is well.

        An edit that would follow its layer is well. Nothing is changed.
        """
        return self._followed()[1]

    def settle(self) -> None:
        """Put the edits on the layers that the model has now, where all can follow theirs; else raise the first loss.

        Only taps move: the guards stay on, so this may run in the middle of a pass that has just begun.
        """
        with self._settling:
            plan, lost = self._followed()
            if lost:
                raise lost[0]
            former = self.plan
            if plan is former:
                return  # another thread was here first, and its pass goes on
            try:
                self._replug(plan)
            except BaseException:
                self._replug(former)
                raise

    def unhooked(self) -> list[str]:
        """Names of the points, and of the models, whose hook somebody removed."""
        return [name for name, module, hook in self._hooks if hook not in _hooks(module)]

    def root(self, name: str) -> nn.Module | None:
        """The component that the pipeline has under this name now; the U-Net is always the one that was wired."""
        if name == "unet":
            return self.unet
        pipe = self.pipe()
        root = self._encoders.get(name) if pipe is None else getattr(pipe, name, None)
        return unwrapped(root) if isinstance(root, nn.Module) else None

    def num_train_timesteps(self) -> int:
        """The length of the scheduler's noise schedule."""
        config = getattr(getattr(self.pipe(), "scheduler", None), "config", None)
        return int(getattr(config, "num_train_timesteps", 1000))

    def require_pipe(self) -> Any:
        """The pipeline, or BadEdit when it is gone."""
        pipe = self.pipe()
        if pipe is None:
            raise BadEdit("The pipeline of these edits is gone; make a new Editor on one that uses the U-Net")
        return pipe

    def _change(self, plan: Plan, patches: tuple[Patch, ...], held: bool = False) -> None:
        """All of the change or, when anything interrupts it, what was there before."""
        former = self.plan, self.patches, bool(self._hooks)
        self._require_whole()
        try:
            self._replace(plan, patches, held)
            self._outdate_embeddings(former[0])
        except BaseException:
            self._replace(*former)
            raise

    def require_free(self) -> None:
        """AlreadyEdited when another wiring is on the U-Net."""
        other = Wiring.of(self.require_pipe())
        if other is not None and other is not self:
            other._require_whole()
            raise AlreadyEdited("This U-Net already has an Editor: use Editor.of(pipe), or close that one first")

    def _require_whole(self) -> None:
        if self.orphaned:
            raise next(lost_edits(self))

    def _replace(self, plan: Plan, patches: tuple[Patch, ...], held: bool) -> None:
        self._take_off()
        try:
            self.plan, self.patches = plan, patches
            if patches or held:
                self._install()
        except BaseException:
            self._take_off()
            raise

    def _outdate_embeddings(self, former: Plan) -> None:
        if former.encoders or self.plan.encoders:
            self.origins.edited()

    def _take_off(self) -> None:
        drop()
        self._unhook_to(0)
        self.plan, self.patches = Plan(), ()

    def _unhook_to(self, count: int) -> None:
        while len(self._hooks) > count:
            # Forgotten only when it is off: an interrupt in between leaves nothing behind.
            _, module, hook = self._hooks[-1]
            _unhook(module, hook)
            self._hooks.pop()

    def _followed(self) -> tuple[Plan, list[EditLost]]:
        """The plan under which every edit acts on the model as it is now, and what is lost under any."""
        lost = list(lost_edits(self))
        if not lost or not all(isinstance(one, Displaced) for one in lost):
            return self.plan, [one for one in lost if not isinstance(one, Displaced)]
        try:
            return planned(SimpleNamespace(unet=self.unet, **self._encoders), self.patches), []
        except HookError:
            return self.plan, lost

    def _replug(self, plan: Plan) -> None:
        self._unhook_to(self._guards)
        self.plan = plan
        for socket in plan.sockets:
            self._plug(socket)

    def _install(self) -> None:
        pipe = self.require_pipe()
        self._encoders = {
            name: component(pipe, name) for name in TEXT_ENCODERS if isinstance(getattr(pipe, name, None), nn.Module)
        }
        for name, encoder in self._encoders.items():
            opener, closer = EncoderOpener(self, name), Closer(self, name)
            self._hook(name, encoder, opener, encoder.register_forward_pre_hook, with_kwargs=True)
            self._hook(name, encoder, closer, encoder.register_forward_hook, always_call=True)
        unet = self.unet
        self._hook("unet", unet, Opener(self), unet.register_forward_pre_hook, with_kwargs=True)
        self._hook("unet", unet, Closer(self, "unet"), unet.register_forward_hook, always_call=True)
        self._guards = len(self._hooks)
        for socket in self.plan.sockets:
            self._plug(socket)

    def _plug(self, socket: Socket) -> None:
        name, module, tap = socket.place.name, socket.place.module, socket.tap
        if isinstance(tap, DecoderTap):
            self._hook(name, module, tap.before, module.register_forward_pre_hook, with_kwargs=True)
            return
        if isinstance(tap, ModuleTap) and "before" in tap.hooks:
            self._hook(name, module, tap.before, module.register_forward_pre_hook)
        if "after" in tap.hooks:
            self._hook(name, module, tap.after, module.register_forward_hook)

    def _hook(self, name: str, module: nn.Module, hook: Any, register: Callable[..., Any], **options: bool) -> None:
        # The undo stands before the act: an interrupt between the two leaves nothing behind.
        self._hooks.append((name, module, hook))
        register(hook, **options)


def _hooks(module: nn.Module) -> list[Any]:
    return [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]


def _unhook(module: nn.Module, hook: Any) -> None:
    """Remove a hook with every trace of its registration, whether or not it got there."""
    marks: list[Any] = [
        module._forward_pre_hooks_with_kwargs,
        module._forward_hooks_with_kwargs,
        module._forward_hooks_always_called,
    ]
    tables: list[Any] = [module._forward_pre_hooks, module._forward_hooks]
    for table in tables:
        for key in [key for key, found in table.items() if found == hook]:
            for mark in marks:
                mark.pop(key, None)
            del table[key]
