"""What the tests of one method share: tiny pipelines, fits and pictures, each made once."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from efface.concept import Request
from efface.editor import Editor
from efface.erasing import erase
from efface.erasure import Erasure
from efface.method import Method, Progress, silent
from efface.registry import Registry
from efface.settings import build
from efface.testing.partner import Partner, PartnerPlugin
from efface.testing.pipelines import Family, tiny_pipeline
from efface.testing.state import marks
from efface_hooks import HookPoint
from efface_hooks.point import find_all

FAST = 3600.0


class Interruption(KeyboardInterrupt):
    """Stands for somebody who presses Ctrl-C."""


class Bench:
    """Pipelines, fits and pictures of one method with its settings, in a registry of its plugin and a partner's."""

    def __init__(self, plugin: object, method: str, settings: Mapping[str, object]) -> None:
        found = import_module(plugin) if isinstance(plugin, str) else plugin
        self.registry = Registry([found, PartnerPlugin()])
        self.cls = self.registry.method(method)
        self.method: Method = build(self.cls, settings)
        self.steps_told: dict[Family, int] = {}
        self._pipes: dict[tuple[Family, torch.dtype], tuple[Any, tuple[object, ...]]] = {}
        self._fits: dict[tuple[object, ...], Erasure] = {}
        self._pictures: dict[tuple[object, ...], Tensor] = {}

    def pipe(self, family: Family, dtype: torch.dtype = torch.float32) -> Any:
        """The pipeline, made anew where a broken method has left something on it."""
        pipe, before = self._pipes.get((family, dtype), (None, None))
        if pipe is None or marks(pipe) != before:
            pipe = fresh(family, dtype)
            self._pipes[family, dtype] = pipe, marks(pipe)
        return pipe

    def fit(self, family: Family, request: Request, *, dtype: torch.dtype = torch.float32) -> Erasure:
        """The erasure for a request, seed 0."""
        key = (family, request, dtype)
        if key not in self._fits:
            counted = Counted()
            self._fits[key] = self.new_fit(family, request, dtype=dtype, progress=counted)
            self.steps_told[family] = counted.calls
        return self._fits[key]

    def new_fit(
        self,
        family: Family,
        request: Request,
        *,
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
        progress: Progress = silent,
        folder: Path | None = None,
    ) -> Erasure:
        return erase(
            self.pipe(family, dtype),
            list(request.concepts),
            keep=request.keep,
            templates=request.templates,
            method=self.method,
            seed=seed,
            progress=progress,
            folder=folder,
            registry=self.registry,
        )

    def partner(self, family: Family, request: Request) -> Erasure:
        """The other method's erasure for a request."""
        key = ("partner", family, request)
        if key not in self._fits:
            self._fits[key] = erase(self.pipe(family), list(request.concepts), method=Partner(), registry=self.registry)
        return self._fits[key]

    @contextmanager
    def on(self, pipe: Any, *erasures: Erasure) -> Iterator[Editor]:
        """An editor with these erasures while the context is open."""
        with Editor(pipe, *erasures, registry=self.registry) as editor:
            yield editor

    def points(self, pipe: Any, erasure: Erasure) -> list[HookPoint]:
        """The hook points that an erasure touches."""
        return find_all(pipe, erasure.header.points, self.registry.points(pipe))

    def base(self, family: Family, *prompts: str, dtype: torch.dtype = torch.float32, **options: Any) -> Tensor:
        """The picture without any erasure."""
        key = (family, prompts, dtype, *sorted(options.items()))
        if key not in self._pictures:
            self._pictures[key] = picture(self.pipe(family, dtype), *prompts, **options)
        return self._pictures[key]


class Counted:
    """A progress that counts, and interrupts at one of its calls if told to."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.calls = 0
        self.stop_at = stop_at

    def __call__(self, done: int, total: int, what: str) -> None:
        if self.calls == self.stop_at:
            raise Interruption
        self.calls += 1


def fresh(family: Family, dtype: torch.dtype = torch.float32) -> Any:
    """A pipeline that has made a picture: libraries leave marks of their own the first time."""
    pipe = tiny_pipeline(family, dtype=dtype)
    picture(pipe, "a")
    return pipe


def picture(pipe: Any, *prompts: str, steps: int = 2, guidance: float = 7.5, **options: Any) -> Tensor:
    """Latents (n, C, h, w), one for each prompt; the i-th starts from the noise of seed i."""
    generators = [torch.Generator().manual_seed(number) for number in range(len(prompts))]
    found: Tensor = pipe(
        list(prompts),
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=generators,
        output_type="latent",
        **options,
    ).images
    return found


def gap(one: Tensor, other: Tensor) -> float:
    """The largest difference of two pictures, as a share of the largest number in the second; nan is infinite."""
    difference = (one.float() - other.float()).abs().max() / other.float().abs().max().clamp_min(1e-12)
    return float(difference.nan_to_num(torch.inf))


@contextmanager
def interrupted_pass(pipe: Any) -> Iterator[None]:
    """The next pass of the U-Net is interrupted in its middle; swallows that interruption."""

    def stop(*_: object) -> None:
        raise Interruption

    hook = pipe.unet.mid_block.register_forward_pre_hook(stop)
    try:
        yield
    except Interruption:
        pass
    finally:
        hook.remove()


@contextmanager
def elsewhere() -> Iterator[None]:
    """Another time and place: global random generators in other states, and a clock that runs fast."""
    import numpy as np

    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    clocks = {name: _fast(getattr(time, name)) for name in ("time", "perf_counter", "monotonic", "process_time")}
    try:
        with mock.patch.multiple(time, **clocks):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def _fast(clock: Any) -> Any:
    return lambda: FAST * clock()
