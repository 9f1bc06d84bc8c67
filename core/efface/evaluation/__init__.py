"""How well an erasure does, in numbers with intervals: what is gone, what stayed, what else changed."""

from typing import TYPE_CHECKING

from efface_hooks.lazy import lazily

if TYPE_CHECKING:
    from efface.evaluation.evaluating import evaluate as evaluate
    from efface.evaluation.gallery import Gallery as Gallery
    from efface.evaluation.scores import Estimate as Estimate
    from efface.evaluation.scores import Evaluation as Evaluation
    from efface.evaluation.scores import Scores as Scores

__getattr__, __all__ = lazily(
    __name__,
    {
        "efface.evaluation.evaluating": "evaluate",
        "efface.evaluation.gallery": "Gallery",
        "efface.evaluation.scores": "Estimate Evaluation Scores",
    },
)
