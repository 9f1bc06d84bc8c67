"""Fitted files that come with a model, for fits that take longer than anyone waits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from efface import fingerprint
from efface.concept import Request
from efface.erasure import Erasure
from efface.errors import BadArtifact
from efface.registry import Registry
from efface.settings import as_dict, build
from efface_hooks.errors import HookError, listed
from efface_hooks.point import find_all


@dataclass(frozen=True)
class File:
    """An erasure and the name of the file that it is in."""

    name: str
    erasure: Erasure


@dataclass(frozen=True)
class Search:
    """The file that a method can be shown with; else None, and `why` there is none."""

    file: File | None
    why: str = ""


@dataclass(frozen=True)
class Shipped:
    """The files in a model's folder of erasures; without a folder there are none."""

    pipe: Any
    registry: Registry
    folder: Path | None = None

    @classmethod
    def of(cls, pipe: Any, model: str, registry: Registry) -> Shipped:
        """`model` is what the pipeline was loaded by: only a model that a plugin brought has files."""
        named = registry.models().get(model)
        return cls(pipe, registry, named.erasures() if named and named.erasures else None)

    @cached_property
    def files(self) -> list[File]:
        """What can be read, by name; `damaged` holds the names of the others."""
        return [File(name, one) for name, one in self._contents if one is not None]

    @cached_property
    def damaged(self) -> list[str]:
        return [name for name, one in self._contents if one is None]

    @cached_property
    def _contents(self) -> list[tuple[str, Erasure | None]]:
        return [(path.name, _read(path)) for path in sorted(self.folder.glob("*.safetensors"))] if self.folder else []

    def find(self, method: str, request: Request, settings: Mapping[str, object]) -> Search:
        """The file that this method's fit would give for this request on this model, by these settings or defaults."""
        name = method.rpartition(":")[2]
        files = [file for file in self.files if file.erasure.method == name]
        usual = as_dict(build(self.registry.method(method), settings))
        found = [(list(self._differences(file.erasure, method, request, usual)), file) for file in files]
        if not found:
            damaged = f"; damaged: {listed(self.damaged)}" if self.damaged else ""
            return Search(None, f"no fitted file of it comes with the model{damaged}")
        differences, nearest = min(found, key=lambda one: len(one[0]))
        if not differences:
            return Search(nearest)
        return Search(None, f"{nearest.name} comes with the model, but for {listed(differences)}")

    def _differences(self, erasure: Erasure, method: str, request: Request, usual: Mapping[str, Any]) -> Iterator[str]:
        header, cls = erasure.header, self.registry.method(method)
        if header.request != request:
            yield "another request"
        others = [name for name in sorted({*usual, *header.settings}) if header.settings.get(name) != usual.get(name)]
        if others:
            yield f"other settings ({', '.join(others)})"
        made_by, here = (header.distribution, header.version), self.registry.origin(cls)
        if any(recorded and recorded != now for recorded, now in zip(made_by, here, strict=True)):
            yield f"another plugin ({' '.join(made_by).strip()}, installed is {' '.join(here).strip() or 'none'})"
        if not self._fits(erasure):
            yield "another base model"

    def _fits(self, erasure: Erasure) -> bool:
        header = erasure.header
        try:
            points = find_all(self.pipe, header.points, self.registry.points(self.pipe))
            fingerprint.check(header.base, self.pipe, points)
        except HookError:  # a point that is not there, or WrongBase
            return False
        return True


def _read(path: Path) -> Erasure | None:
    try:
        return Erasure.load(path)
    except BadArtifact:
        return None
