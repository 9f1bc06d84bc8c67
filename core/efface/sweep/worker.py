"""One cell after another on one pipeline: fit, put on, evaluate."""

from __future__ import annotations

import hashlib
import importlib.metadata
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from efface.errors import EffaceError
from efface.header import canonical_json
from efface.method import Method
from efface.model import Model
from efface.registry import Registry
from efface.settings import as_dict, build
from efface.settings import preset as preset_of
from efface.suite import Suite, configured
from efface.sweep.grid import Cell, Grid, Measure, Opening


@dataclass(frozen=True)
class Finished:
    """The figures of a cell and the seconds they took, or the error that kept it from having any."""

    figures: dict[str, Any] | None = None
    seconds: float = 0.0
    error: str | None = None


class Worker:
    """A loaded model; pictures are kept in the folder `cache`, or in memory."""

    def __init__(self, opening: Opening, measure: Measure, cache: Path | None) -> None:
        import torch

        from efface.evaluation.gallery import Gallery
        from efface.loading import load

        self.opening, self.measure = opening, measure
        self.registry = Registry.installed()
        self.gallery = Gallery(cache)
        self.pipe = load(
            opening.model,
            config=opening.config,
            device=opening.device,
            dtype=getattr(torch, opening.dtype),
            registry=self.registry,
        )
        self.judge = self._judge()

    def run(self, cell: Cell) -> Finished:
        """What comes of a cell; an error of any kind is what comes of it, so that the others go on."""
        started = time.perf_counter()
        try:
            figures = self._figures(cell)
        except EffaceError as error:
            return Finished(error=str(error))
        except Exception as error:
            return Finished(error=f"{type(error).__name__}: {error}")
        return Finished(figures, round(time.perf_counter() - started, 3))

    def keys(self, grid: Grid) -> dict[str, Cell]:
        """Every cell under a digest of all that its figures depend on; EffaceError for one that cannot be run."""
        from efface.evaluation.studio import subject_of
        from efface.evaluation.targets import known
        from efface.report.imprint import weights_digest

        subject = subject_of(self.pipe, weights_digest(self.pipe))
        for cell in grid.cells:
            known(self.judge, cell.concept)
        return {self._key(cell, subject): cell for cell in grid.cells}

    def _key(self, cell: Cell, subject: str) -> str:
        from efface.evaluation.code import source_digest

        method = self._method(cell)
        about = {
            "method": [*self.registry.origin(type(method)), method.name, source_digest(type(method))],
            "settings": as_dict(method),
            "request": cell.request.to_json(),
            "seed": cell.seed,
            "measure": {**vars(self.measure), "seeds": list(self.measure.seeds)},
            "judge": [self.judge.name, self.judge.digest],
            "subject": subject,
            "efface": importlib.metadata.version("efface"),
        }
        return hashlib.sha256(canonical_json(about).encode()).hexdigest()

    def _method(self, cell: Cell) -> Method:
        cls = self.registry.method(cell.method)
        values: Mapping[str, object] = preset_of(cls, cell.preset) if cell.preset else {}
        return build(cls, {**values, **cell.settings})

    def _judge(self) -> Suite:
        reader, name = Model(self.pipe, self.registry), self.measure.suite
        found = self.registry.suite_for(reader) if name is None else self.registry.suite(name)
        if found is None:
            raise EffaceError(f"No suite accepts {self.opening.model}; name one as 'suite' in [evaluation]")
        judge = configured(found, self.measure.suite_settings)
        judge.prepare()
        return judge

    def _figures(self, cell: Cell) -> dict[str, Any]:
        from efface.erasing import erase
        from efface.evaluation.evaluating import evaluate

        erasure = erase(
            self.pipe,
            cell.request.concepts,
            method=self._method(cell),
            keep=cell.request.keep,
            templates=cell.request.templates,
            seed=cell.seed,
            registry=self.registry,
        )
        found = evaluate(
            self.pipe,
            [erasure],
            model=self.opening.model,
            registry=self.registry,
            suite=self.judge,
            seeds=self.measure.seeds,
            steps=self.measure.steps,
            guidance=self.measure.guidance,
            batch_size=self.measure.batch_size,
            gallery=self.gallery,
        )
        (scores,) = found.concepts.values()
        return scores.to_json() | {"erasure_sha256": erasure.digest}
