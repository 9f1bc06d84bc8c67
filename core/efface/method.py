"""The contract between efface and a method of erasure."""

from __future__ import annotations

import hashlib
import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from efface.checkpoint import Checkpoint
from efface.concept import Request
from efface.errors import BadSetting, EffaceError, PluginError
from efface.processes import ALONE, Processes
from efface.settings import build, describe

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from efface.model import Model
    from efface_hooks import Patch

METHOD_NAME = re.compile(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*")
SEEDS = range(2**64)
OPTIONAL = {
    "compose": ("fits", "request"),
    "illustrate": ("erasure", "showing"),
    "merge": ("fits", "request"),
    "step_flops": ("fitted", "positions"),
}


@dataclass(frozen=True)
class Fit:
    """What a method computed: `tensors` and `facts` to apply it, `report` for people; both dicts hold JSON."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Fitted:
    """A fit on its way back to the model, with the request it answers and the strength asked for."""

    fit: Fit
    request: Request
    scale: float = 1.0


class Progress(Protocol):
    """Hears how far a fit has come."""

    def __call__(self, done: int, total: int, what: str) -> None: ...


def silent(done: int, total: int, what: str) -> None:
    """The progress that shows nothing."""


@dataclass(frozen=True)
class Run:
    """The circumstances of a fit: its seed, whom to tell, a folder for checkpoints if it may write any, and with which
    other processes it shares the work."""

    seed: int = 0
    progress: Progress = silent
    folder: Path | None = None
    processes: Processes = ALONE

    def __post_init__(self) -> None:
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed not in SEEDS:
            raise BadSetting(f"The seed must be a whole number from 0 to {SEEDS[-1]}, not {self.seed!r}")

    def generator(self, device: torch.device | str = "cpu", stream: str = "") -> torch.Generator:
        """A fresh generator that gives the same numbers in every run with this seed.

        Generators of different streams are independent; two of one stream give the same numbers.
        """
        import torch

        return torch.Generator(device).manual_seed(_mixed(self.seed, stream) if stream else self.seed)

    def checkpoint(self, name: str, *identity: object) -> Checkpoint:
        """A file in `folder` for what a fit has computed so far; without a folder it keeps nothing.

        `identity` is all that the content depends on, JSON in which tensors may stand: settings, seed, the request, the
        base. Another identity has another file.
        """
        return Checkpoint.of(self.folder, name, *identity)


@dataclass(frozen=True)
class Covers:
    """Where a method works: families of pipeline, kinds of hook point it touches, and what goes around it."""

    families: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    bypassed_by: tuple[str, ...] = ()


class Method(Protocol):
    """A way to erase concepts: a frozen dataclass whose fields are its settings.

    A class may also declare `stacks: ClassVar[bool]` (one `apply` for all its enabled erasures with equal
    settings), `splits: ClassVar[bool]`, or a property where settings decide (its `fit` shares the work out by
    `run.processes`), `covers: ClassVar[Covers]`, `cost_hint: ClassVar[float]` (seconds that a fit of one concept takes
    on the embedded model with two cores) and `presets: ClassVar[Mapping[str, Mapping[str, object]]]`. It may be
    `Composable` or `Mergeable`, and have `step_flops(fitted, positions) -> float`: the operations that its tensor edits
    add to one denoising call for one picture, given at how many positions each layer of the U-Net computes. And
    `illustrate(erasure, showing)`, which gives pictures for a demonstration (`efface.report.illustration`).
    """

    name: ClassVar[str]

    def fit(self, model: Model, request: Request, run: Run) -> Fit:
        """Compute the erasure and leave the model exactly as it was."""
        ...

    def apply(self, patch: Patch, fits: Sequence[Fitted]) -> None:
        """Put fits on the model by the verbs of `patch`; nothing here may be slow."""
        ...


class Composable(Method, Protocol):
    """A method whose fits hold what they were solved from, so that several can be solved again as one."""

    def compose(self, fits: Sequence[Fitted], request: Request) -> Fit:
        """The fit for a request without the model: what fitting it there at once would give.

        Every concept of the request is one of a fit's, as is every kept prompt; templates are the same in all, and so
        are the settings. Its report has "composition": for each concept's text {"stacked": a, "joint": b}, the share
        of the way to its anchor that is left when the fits are put side by side, and by this one. It may have "kept"
        with the same two for how far what is kept moves, in shares of its size.
        """
        ...


class Mergeable(Method, Protocol):
    """A method that keeps concepts apart, so that those of several fits go into one, and any of them comes out again.

    Where a method is `Composable` too, efface composes.
    """

    def merge(self, fits: Sequence[Fitted], request: Request) -> Fit:
        """One fit of the request's concepts, each exactly as it was fitted; without the model.

        The concepts are those of the fits in their order, less some; every fit has one at least that is left. Templates
        are the same in all, and so are the settings. A method that can do it with some settings only raises an
        EffaceError that says with which.
        """
        ...


def composes(method_class: type[Method]) -> bool:
    """Whether fits of the method can be solved again as one."""
    return callable(getattr(method_class, "compose", None))


def merges(method_class: type[Method]) -> bool:
    """Whether concepts of several fits go into one as they are, with some settings at least; not if it composes."""
    return callable(getattr(method_class, "merge", None)) and not composes(method_class)


def step_flops(method: Method, fitted: Fitted, positions: Mapping[str, int]) -> float | None:
    """What a method says its tensor edits add to a denoising call for one picture; None where it does not say."""
    own: Callable[[Fitted, Mapping[str, int]], float] | None = getattr(method, "step_flops", None)
    return None if own is None else float(own(fitted, positions))


def stacks(method_class: type[Method]) -> bool:
    """Whether one `apply` takes all enabled erasures of the method that have equal settings."""
    return bool(getattr(method_class, "stacks", False))


def splits(method: Method) -> bool:
    """Whether the method's fit, with its settings, shares its work between the processes of a run."""
    return bool(getattr(method, "splits", False))


def covers(method_class: type[Method]) -> Covers | None:
    """Where the method says it works; None where it does not say."""
    found: Covers | None = getattr(method_class, "covers", None)
    return found


def cost_hint(method_class: type[Method]) -> float | None:
    """Seconds that a fit is expected to take on the embedded model; None where the method does not say."""
    found: float | None = getattr(method_class, "cost_hint", None)
    return found


def check_method(cls: object) -> None:
    """Raise PluginError with the first thing that keeps a class from being a method."""
    if not isinstance(cls, type):
        raise PluginError(f"A method is a class, not {cls!r}; leave out the brackets after its name")
    where = f"Method {cls.__module__}.{cls.__qualname__}"
    if not is_dataclass(cls) or not _frozen(cls):
        raise PluginError(f"{where} is not a frozen dataclass; decorate it with @dataclass(frozen=True)")
    name = getattr(cls, "name", None)
    if not isinstance(name, str) or not METHOD_NAME.fullmatch(name):
        raise PluginError(f"{where} needs name: ClassVar[str], lower case such as 'my-method', not {name!r}")
    _check_callable(cls, where, "fit", ("model", "request", "run"))
    _check_callable(cls, where, "apply", ("patch", "fits"))
    for verb, arguments in OPTIONAL.items():
        if hasattr(cls, verb):
            _check_callable(cls, where, verb, arguments)
    _check_settings(cls, where)
    _check_declarations(cls, where)


def _frozen(cls: type) -> bool:
    return bool(cls.__dataclass_params__.frozen)  # type: ignore[attr-defined]


def _check_callable(cls: type, where: str, verb: str, arguments: tuple[str, ...]) -> None:
    wanted = f"{verb}(self, {', '.join(arguments)})"
    function: Callable[..., object] | None = getattr(cls, verb, None)
    if not callable(function):
        raise PluginError(f"{where} has no {wanted}")
    signature = inspect.signature(function)
    try:
        signature.bind("self", *arguments)
    except TypeError:
        raise PluginError(f"{where} defines {verb}{signature}; it must take {wanted}") from None


def _check_settings(cls: type, where: str) -> None:
    describe(cls)
    presets = getattr(cls, "presets", {})
    if not isinstance(presets, Mapping):
        raise PluginError(f"{where} has presets that are no mapping of names to settings: {presets!r}")
    for name, values in presets.items():
        if not isinstance(values, Mapping):
            raise PluginError(f"{where}, preset {name!r}, is no mapping of settings: {values!r}")
        try:
            build(cls, values)
        except EffaceError as error:
            raise PluginError(f"{where}, preset {name!r}: {error}") from error


def _check_declarations(cls: type, where: str) -> None:
    for flag, allowed in (("stacks", bool), ("splits", bool | property)):
        if not isinstance(getattr(cls, flag, False), allowed):
            raise PluginError(f"{where} has {flag} = {getattr(cls, flag)!r}; it is True or False")
    if not isinstance(getattr(cls, "covers", Covers()), Covers):
        raise PluginError(f"{where} has covers = {cls.covers!r}; it is an efface.Covers")  # type: ignore[attr-defined]
    hint = getattr(cls, "cost_hint", 0.0)
    if isinstance(hint, bool) or not isinstance(hint, int | float) or not (math.isfinite(hint) and hint >= 0):
        raise PluginError(f"{where} has cost_hint = {hint!r}; it is a number of seconds")


def _mixed(seed: int, stream: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{stream}".encode()).digest()[:8])
