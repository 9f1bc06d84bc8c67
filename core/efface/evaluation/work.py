"""The pictures that an evaluation draws, stage by stage, and the figures that come of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from efface.evaluation import stages
from efface.evaluation.draws import Draw
from efface.evaluation.figures import scores
from efface.evaluation.scores import Scores
from efface.evaluation.stages import Stage
from efface.evaluation.studio import Studio
from efface.evaluation.targets import Target
from efface.evaluation.viewing import View
from efface.method import Progress
from efface.processes import Processes
from efface.suite import Suite

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Work:
    """What is drawn in one stage, each batch once although several targets ask for it."""

    stage: Stage
    draws: tuple[Draw, ...]

    @classmethod
    def before(cls, targets: Sequence[Target]) -> Work:
        draws = [draw for target in targets for draw in (*target.compared, *target.base_only)]
        return cls(stages.base(), tuple(dict.fromkeys(draws)))

    @classmethod
    def after(cls, stage: Stage, targets: Sequence[Target]) -> Work:
        return cls(stage, tuple(dict.fromkeys(draw for target in targets for draw in target.compared)))

    @classmethod
    def alone(cls, stage: Stage, targets: Sequence[Target], own: Sequence[Target]) -> Work:
        """Everything of the targets that are the erasure's own; of the others' no more than their concepts."""
        draws = [draw for target in own for draw in target.compared]
        crossed = [draw for target in targets for draw in target.crossed]
        return cls(stage, tuple(dict.fromkeys([*draws, *crossed])))

    @property
    def pictures(self) -> int:
        return sum(len(draw.seeds) for draw in self.draws)


@dataclass
class Drawing:
    """Making what is missing, shared out between the processes of a run; the first one keeps it and says how far it is.

    `done` counts pictures, of `total`. A suite that cannot judge says so of the first batch, about the concept `asked`.
    """

    studio: Studio
    processes: Processes
    progress: Progress
    total: int
    asked: str
    done: int = 0
    judged: bool = False

    def draw(self, work: Work, view: View) -> None:
        """One stage, each batch in the first process's gallery as soon as it is made."""
        missing = self.processes.first(lambda: self.studio.missing(work.stage, work.draws))
        self.done += work.pictures - sum(len(draw.seeds) for draw in missing)
        with work.stage.enter():
            made = self.processes.each(missing, lambda draw: self._made(work.stage, draw))
            for draw, images in zip(missing, made, strict=True):
                if self.processes.rank == 0:
                    self._keep(work.stage, draw, images, view)
                self.done += len(draw.seeds)

    def _made(self, stage: Stage, draw: Draw) -> list[Image]:
        self.progress(self.done, self.total, f"{stage.name}: {draw.prompt}")
        return self.studio.made(draw)

    def _keep(self, stage: Stage, draw: Draw, images: list[Image], view: View) -> None:
        self.studio.keep(stage, draw, images)
        if not self.judged:
            view.shown((draw,), self.asked)
            self.judged = True


def views(
    studio: Studio,
    suite: Suite,
    targets: Sequence[Target],
    work: Sequence[Work],
    progress: Progress,
    processes: Processes,
) -> list[View]:
    """All that is asked for, drawn, as the suite sees it: a view for each stage, the base's first.

    Only the first process has the pictures to look at.
    """
    processes.check_same("model, libraries and erasures", [studio.subject, *(one.stage.identity for one in work)])
    if processes.rank == 0:
        studio.gallery.tidy()
    seen = [View(suite, partial(studio.pictures, one.stage)) for one in work]
    total = sum(one.pictures for one in work)
    drawing = Drawing(studio, processes, progress, total, targets[0].concept.text)
    for one, view in zip(work, seen, strict=True):
        drawing.draw(one, view)
    progress(drawing.done, drawing.total, "judging")
    return seen


def scored(targets: Sequence[Target], before: View, after: View) -> dict[str, Scores]:
    """The figures of each target's concept."""
    return {target.concept.text: scores(target, before, after) for target in targets}
