"""What an edit may know about the forward pass it runs in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from efface_hooks.errors import BadEdit, NotInThisPass

if TYPE_CHECKING:
    from efface_hooks.origins import Origins, PromptCache

T = TypeVar("T")

# A context variable, so that threads that share a U-Net each see their own pass.
_open: ContextVar[Call | None] = ContextVar("efface_call", default=None)


class Call:
    """One forward pass of the U-Net, or of a text encoder (`component` says which).

    `memo` is a dict of this pass alone, so that several edits share one side computation. What only a U-Net pass
    has (`sample`, `timestep`, `text`, ...) raises NotInThisPass during a text encoder's pass. There is no step
    index: a U-Net cannot know it, so a window of steps is a range of timesteps.
    """

    def __init__(self, component: str, origins: Origins) -> None:
        self.component = component
        self.memo: dict[Any, Any] = {}
        self.fired: set[tuple[str, str]] = set()
        self.busy = 0
        self._origins = origins
        self._unet: UNetInputs | None = None
        self._ids: Tensor | None = None
        self._token: Token[Call | None] | None = None

    @property
    def sample(self) -> Tensor:
        """The noisy latents (B, C, h, w) as the U-Net received them."""
        return self._inputs("sample").sample

    @property
    def timestep(self) -> Tensor:
        """The timestep of every sample of the batch, (B,), on the sample's device."""
        return self._inputs("timestep").timestep

    @property
    def num_train_timesteps(self) -> int:
        """How many timesteps the noise schedule has; `timestep` counts down from there."""
        return self._inputs("num_train_timesteps").num_train_timesteps

    @property
    def text(self) -> Tensor:
        """`encoder_hidden_states` (B, T, D) as passed in, before edits at `unet.text`."""
        return self._inputs("text").text

    @property
    def added(self) -> dict[str, Any]:
        """SDXL's added conditions (`text_embeds`, `time_ids`); empty elsewhere."""
        return self._inputs("added").added

    @property
    def ids(self) -> Tensor | None:
        """Token ids (B, T) that the first text encoder saw for these rows; None for precomputed embeddings."""
        if self._unet is None:
            return self._ids
        return self._cache.ids

    @property
    def conditional(self) -> Tensor | None:
        """(B,) bool, True in rows that carry the prompt, False in the unconditional half; None when unknown."""
        return self._cache.conditional

    def per_prompt(self, compute: Callable[[Call], T]) -> T:
        """`compute(call)`, run once for each prompt and kept while `encoder_hidden_states` is the same object.

        The result is kept under `compute` itself: pass the same function each time, not a new lambda.
        """
        kept = self._cache.values
        if compute not in kept:
            kept[compute] = compute(self)
        value: T = kept[compute]
        return value

    @property
    def _cache(self) -> PromptCache:
        return self._origins.cache(self.text, self.sample)

    def _inputs(self, name: str) -> UNetInputs:
        if self._unet is None:
            raise NotInThisPass(f"call.{name} exists in a U-Net pass only; this is a pass of {self.component}")
        return self._unet


class UNetInputs:
    """The arguments of `UNet2DConditionModel.forward`, positional or by keyword, in one form."""

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any], num_train_timesteps: int) -> None:
        named = dict(zip(("sample", "timestep", "encoder_hidden_states"), args, strict=False)) | kwargs
        self.sample: Tensor = named["sample"]
        self.text: Tensor = named["encoder_hidden_states"]
        self.timestep = per_sample(named["timestep"], self.sample)
        self.added: dict[str, Any] = named.get("added_cond_kwargs") or {}
        self.num_train_timesteps = num_train_timesteps


def per_sample(timestep: Any, sample: Tensor) -> Tensor:
    """A timestep given as int, float, 0-d, (1,) or (B,) tensor as a tensor (B,) on the sample's device."""
    if isinstance(timestep, Tensor):
        flat = timestep.detach().to(sample.device, non_blocking=True).reshape(-1)
    else:
        dtype = torch.float32 if isinstance(timestep, float) else torch.int64
        flat = torch.full((1,), timestep, dtype=dtype, device=sample.device)
    batch = sample.shape[0]
    if flat.shape[0] not in (1, batch):
        raise BadEdit(f"{flat.shape[0]} timesteps for a batch of {batch}")
    return flat.expand(batch)


def current() -> Call | None:
    """The pass that is running in this thread, None outside of one."""
    return _open.get()


def begin(call: Call) -> None:
    """Make a call the current one.

    A pass runs inside another one only when an edit makes it. Any other call that is still open was left behind by
    a KeyboardInterrupt, after which torch runs no hooks, and is dropped here.
    """
    outer = _open.get()
    if outer is not None and not outer.busy:
        _open.set(None)
    call._token = _open.set(call)


@contextmanager
def running(call: Call) -> Iterator[None]:
    """Marks that an edit runs, so that a pass it makes is nested in this one."""
    call.busy += 1
    try:
        yield
    finally:
        call.busy -= 1


def end() -> Call | None:
    """Close the current call and return it; the one around it, if any, is current again."""
    call = _open.get()
    if call is not None and call._token is not None:
        _open.reset(call._token)
        call._token = None
    return call


def drop() -> None:
    """Forget a call that an interrupted pass of this thread left open."""
    _open.set(None)
