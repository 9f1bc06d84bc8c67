"""One pipeline with its erasures, as somebody at the page sees them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import efface
from efface.generating import generate
from efface.method import Progress, silent
from efface.policy import pin
from efface.report.illustration import Illustration, Showing, drawing_of
from efface.report.prompt import Prompt
from efface.report.sampling import Sampling
from efface.settings import build

if TYPE_CHECKING:
    from PIL.Image import Image

    from efface.editor import Entry

P = ParamSpec("P")
T = TypeVar("T")
POLICY = "efface.toml"


@dataclass(frozen=True)
class Shot:
    """What a picture is made of."""

    prompt: str
    seed: int = 0
    steps: int = 20
    guidance: float = 7.5


def alone(work: Callable[Concatenate[Session, P], T]) -> Callable[Concatenate[Session, P], T]:
    """One thing at a time happens to the pipeline, whoever asks."""

    @wraps(work)
    def waiting(self: Session, /, *arguments: P.args, **named: P.kwargs) -> T:
        with self.lock:
            return work(self, *arguments, **named)

    return waiting


class Session:
    """A model by name, the editor of its pipeline, and the pictures that it made without erasures."""

    def __init__(self, model: str, folder: Path, registry: efface.Registry | None = None) -> None:
        self.registry = registry or efface.Registry.installed()
        self.folder = folder
        self.lock = threading.RLock()
        self.open(model)

    def open(self, model: str) -> None:
        """Another model, with no erasure on it; where it cannot be loaded the former one stays."""
        with self.lock:
            pipe = efface.load(model, registry=self.registry)
            pipe.set_progress_bar_config(disable=True)
            self.model = model
            self.pipe: Any = pipe
            self.editor = efface.Editor(pipe, registry=self.registry)
            self._before: dict[Shot, Image] = {}

    @property
    def suite(self) -> efface.Suite | None:
        """What is installed that knows this model's words."""
        return self.registry.suite_for(efface.Model(self.pipe, self.registry))

    @property
    def entries(self) -> tuple[Entry, ...]:
        return self.editor.entries

    @alone
    def erase(
        self,
        concept: efface.Concept,
        method: str,
        settings: Mapping[str, object],
        *,
        keep: Sequence[str] = (),
        progress: Progress = silent,
    ) -> str:
        """Fit a method and put the erasure on the pipeline; its label. Nothing changes where that fails."""
        erasure = efface.erase(
            self.pipe,
            concept,
            method=method,
            settings=settings,
            keep=keep,
            progress=progress,
            registry=self.registry,
        )
        return self.editor.attach(erasure)

    @alone
    def attach(self, file: str | Path) -> str:
        """Put an erasure from a file on the pipeline; its label."""
        return self.editor.attach(efface.Erasure.load(file))

    @alone
    def detach(self, label: str) -> None:
        self.editor.detach(label)

    @alone
    def switch(self, label: str, on: bool) -> None:
        (self.editor.enable if on else self.editor.disable)(label)

    @alone
    def scale(self, label: str, scale: float) -> None:
        self.editor.scale(label, scale)

    @alone
    def pictures(self, shot: Shot, progress: Progress = silent) -> tuple[Image, Image]:
        """Before and after, from the same noise; the one before is made once."""
        if shot not in self._before:
            with self.bare():
                self._before[shot] = self._picture(shot, progress)
        return self._before[shot], self._picture(shot, progress)

    @alone
    def illustrations(self, shot: Shot, progress: Progress = silent) -> list[tuple[str, Illustration]]:
        """What the methods of the erasures that act draw of them, each under its label."""
        before, _ = self.pictures(shot, progress)
        sampling = Sampling((Prompt(shot.prompt),), (shot.seed,), shot.steps, shot.guidance)
        showing = Showing(self.pipe, self.registry, sampling, (before,), progress)
        acting = [entry for entry in self.entries if entry.acts]
        found = []
        with self.bare():
            for entry in acting:
                header = entry.erasure.header
                draw = drawing_of(build(self.registry.method_of(header), header.settings))
                found += [(entry.label, one) for one in draw(entry.erasure, showing)] if draw else []
        return found

    @alone
    def save(self) -> list[Path]:
        """A file for every erasure that acts, and a policy file that pins model and files."""
        acting = [entry for entry in self.entries if entry.acts]
        if not acting:
            raise efface.EffaceError("There is nothing to save: no erasure is on")
        files = [self.folder / f"{entry.label}.safetensors" for entry in acting]
        self.folder.mkdir(parents=True, exist_ok=True)
        for entry, file in zip(acting, files, strict=True):
            entry.erasure.save(file)
        with self.bare():
            policy = pin(
                self.pipe,
                self.model,
                files,
                self.folder / POLICY,
                scales=[entry.scale for entry in acting],
                registry=self.registry,
            )
        policy.save()
        return [*files, policy.path]

    @contextmanager
    def bare(self) -> Iterator[None]:
        """The pipeline without any erasure; all are back afterwards, as they were."""
        entries = self.entries
        self.editor.close()
        try:
            yield
        finally:
            self.editor = efface.Editor(self.pipe, registry=self.registry)
            for entry in entries:
                self.editor.attach(entry.erasure, scale=entry.scale, enabled=entry.enabled, label=entry.label)

    def _picture(self, shot: Shot, progress: Progress) -> Image:
        (image,) = generate(
            self.pipe, [shot.prompt], [shot.seed], steps=shot.steps, guidance=shot.guidance, progress=progress
        )
        return image
