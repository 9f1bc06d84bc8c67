"""The pictures that an evaluation draws, stage by stage, and the figures that come of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from efface.evaluation import stages
from efface.evaluation.draws import Draw
from efface.evaluation.figures import scores
from efface.evaluation.scores import Scores
from efface.evaluation.stages import Stage
from efface.evaluation.studio import Studio
from efface.evaluation.targets import Target
from efface.evaluation.viewing import View
from efface.method import Progress
from efface.suite import Suite


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


def views(
    studio: Studio, suite: Suite, targets: Sequence[Target], work: Sequence[Work], progress: Progress
) -> list[View]:
    """All that is asked for, drawn, as the suite sees it: a view for each stage, the base's first."""
    done, total = 0, sum(one.pictures for one in work)
    seen = [View(suite, partial(studio.pictures, one.stage)) for one in work]
    for one in work:
        with one.stage.enter():
            for draw in one.draws:
                progress(done, total, f"{one.stage.name}: {draw.prompt}")
                studio.draw(one.stage, draw)
                if done == 0:  # a suite that cannot judge says so now and not after the last picture
                    seen[0].shown((draw,), targets[0].concept.text)
                done += len(draw.seeds)
    progress(done, total, "judging")
    return seen


def scored(targets: Sequence[Target], before: View, after: View) -> dict[str, Scores]:
    """The figures of each target's concept."""
    return {target.concept.text: scores(target, before, after) for target in targets}
