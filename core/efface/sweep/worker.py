"""One cell after another on one pipeline: fit, put on, evaluate."""

from __future__ import annotations

import hashlib
import importlib.metadata
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from efface.errors import EffaceError
from efface.header import canonical_json
from efface.model import Model
from efface.registry import Registry
from efface.settings import as_dict
from efface.suite import Suite, configured
from efface.sweep.grid import Cell, Grid, Measure, Opening, located


@dataclass(frozen=True)
class Finished:
    """The figures of a cell and the seconds they took, or the error that kept it from having any."""

    figures: dict[str, Any] | None = None
    seconds: float = 0.0
    error: str | None = None


class Worker:
    """A model and a judge, loaded when they are first needed; pictures are kept in the folder `cache`, or in memory."""

    def __init__(self, opening: Opening, measure: Measure, cache: Path | None) -> None:
        from efface.evaluation.gallery import Gallery

        self.opening, self.measure = opening, measure
        self.registry = Registry.installed()
        self.gallery = Gallery(cache)

    @cached_property
    def pipe(self) -> Any:
        import torch

        from efface.loading import load

        return load(
            self.opening.model,
            config=self.opening.config,
            device=self.opening.device,
            dtype=getattr(torch, self.opening.dtype),
            registry=self.registry,
        )

    @cached_property
    def judge(self) -> Suite:
        """The suite, ready; one that is named needs no model for that."""
        name = self.measure.suite
        found = self.registry.suite_for(self._model) if name is None else self.registry.suite(name)
        if found is None:
            raise EffaceError(f"No suite accepts {self.opening.model}; name one as 'suite' in [evaluation]")
        judge = configured(found, self.measure.suite_settings)
        judge.prepare()
        return judge

    def run(self, cell: Cell) -> Finished:
        """What comes of a cell; an error of any kind is what comes of it, so that the others go on."""
        try:
            _ = self.judge, self.pipe  # loading them is no part of a cell's seconds
            started = time.perf_counter()
            figures = self._figures(cell)
        except EffaceError as error:
            return Finished(error=str(error))
        except Exception as error:
            return Finished(error=f"{type(error).__name__}: {error}")
        return Finished(figures, round(time.perf_counter() - started, 3))

    def keys(self, grid: Grid) -> dict[str, Cell]:
        """Every cell under a digest of all that its figures depend on; EffaceError for one that cannot be run."""
        from efface.evaluation.studio import subject_of
        from efface.report.imprint import weights_digest

        self._check(grid)
        subject = subject_of(self.pipe, weights_digest(self.pipe))
        return {self._key(cell, subject): cell for cell in grid.cells}

    def _check(self, grid: Grid) -> None:
        """EffaceError for a concept that the judge cannot tell, or for what does not go with the model."""
        from efface.evaluation.evaluating import check_accepts
        from efface.evaluation.targets import known
        from efface.generating import check_steps

        if self.measure.suite is None:
            self._load(grid)
        with located(grid.file, "[evaluation]"):
            judge = self.judge
        for cell in grid.cells:
            with located(grid.file, cell.where):
                known(judge, cell.concept)
        self._load(grid)
        with located(grid.file, "[evaluation]"):
            check_accepts(judge, self._model, self.opening.model)
            check_steps(self.pipe, self.measure.steps)

    def _key(self, cell: Cell, subject: str) -> str:
        from efface.evaluation.code import source_digest

        method = cell.built(self.registry)
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

    def _load(self, grid: Grid) -> None:
        with located(grid.file):
            _ = self.pipe

    @property
    def _model(self) -> Model:
        return Model(self.pipe, self.registry)

    def _figures(self, cell: Cell) -> dict[str, Any]:
        from efface.erasing import erase
        from efface.evaluation.evaluating import evaluate

        erasure = erase(
            self.pipe,
            cell.request.concepts,
            method=cell.built(self.registry),
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
