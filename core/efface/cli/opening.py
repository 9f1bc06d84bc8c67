"""What most commands begin with: a model, and the erasures that go on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from efface.cli.console import Console
from efface.cli.options import pairs
from efface.cli.wording import size
from efface.devices import placed
from efface.errors import EffaceError

if TYPE_CHECKING:
    import torch

    from efface.editor import Editor
    from efface.erasure import Erasure
    from efface.registry import Registry
    from efface.source import Source
    from efface.suite import Suite

LARGE = 10**9


def open_model(console: Console, model: str, registry: Registry, *, device: str = "cpu", dtype: str = "float32") -> Any:
    """The pipeline, loaded quietly where no progress is shown; what large ones need is said before."""
    import torch

    from efface.loading import opened
    from efface.source import located

    where, precision = placed(device, console.offload), getattr(torch, dtype)
    source = located(model, console.config, registry)
    _say(console, source, precision, where)
    with bars(console.shows_progress):
        return opened(source, precision, where, console.offload)


def _say(console: Console, source: Source, dtype: torch.dtype, device: str) -> None:
    """What a model of more than a gigabyte takes, and a variant of its weights that nobody asked for."""
    from efface.memory import Need

    if source.variant is not None:
        console.note(f"{source.name}: the {source.variant} variant of its weights, as a part has no plain ones")
    need = Need.of(source, dtype, device)
    if need is not None and not need.fits and not console.offload:
        console.warn(str(need))
    elif need is not None and need.weights > LARGE:
        free = f", {size(need.free)} free on {device}" if need.free else ""
        console.note(f"{source.name}: {size(need.weights)} of weights{free}")


def read_erasures(files: Sequence[str]) -> list[Erasure]:
    from efface.erasure import Erasure

    return [Erasure.load(file) for file in files]


def strengths(scales: Sequence[float], erasures: int) -> list[float]:
    """A scale for each erasure from the values of `--scale`."""
    if len(scales) > 1 and len(scales) != erasures:
        raise click.UsageError(f"{len(scales)} times --scale for {erasures} erasures: give it once, or once for each")
    return list(scales) if len(scales) == erasures else [*scales, 1.0][:1] * erasures


@contextmanager
def erasures_on(
    pipe: Any,
    files: Sequence[str],
    erasures: Sequence[Erasure],
    scales: Sequence[float],
    *,
    registry: Registry,
    allow_other_base: bool,
) -> Iterator[Editor]:
    """An editor with these erasures, in order, while the context is open; errors name the file."""
    from efface.editor import Editor

    with Editor(pipe, allow_other_base=allow_other_base, registry=registry) as editor:
        for file, erasure, scale in zip(files, erasures, scales, strict=True):
            try:
                editor.attach(erasure, scale=scale)
            except EffaceError as error:
                raise EffaceError(f"{file}: {error}") from error
        yield editor


def judge_of(console: Console, registry: Registry, name: str, settings: Sequence[str]) -> Suite:
    """The suite of that name with what `--suite-set` gives, ready to judge: what it lacks is said now."""
    from efface.suite import configured

    judge = configured(registry.suite(name), pairs(settings, "--suite-set", "clip=clip-vit-base-patch32"))
    with bars(console.shows_progress):
        judge.prepare()
    return judge


@contextmanager
def bars(shown: bool) -> Iterator[None]:
    """The bars that diffusers and transformers draw while they load."""
    from diffusers.utils import logging as diffusers
    from transformers.utils import logging as transformers

    switched = [library for library in (diffusers, transformers) if not shown and library.is_progress_bar_enabled()]
    for library in switched:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in switched:
            library.enable_progress_bar()
