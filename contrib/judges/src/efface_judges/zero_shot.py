"""Suites whose judge is CLIP: a picture shows the concept whose text it is nearest to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import efface
from efface.concept import Kind
from efface.errors import BadConcept, BadSetting, unknown
from efface_judges.contents import text_digest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    from efface_judges.clip import Clip

UNRELATED = (
    "a bowl of fruit on a wooden table",
    "a mountain lake at sunrise",
    "an open book beside a candle",
    "a field of tulips",
    "a glass of water on a windowsill",
)


@dataclass(frozen=True)
class ZeroShot(efface.Suite):
    """Classification by the nearest of the concepts of one kind, and of what a kind names besides (`rivals`).

    With the threshold 0.5 a concept counts as shown where its text is the nearest one, which is zero-shot accuracy.
    There are no scenes: one nearest text cannot tell two things.
    """

    clip: str | None = efface.setting(None, help="Folder of the CLIP model that judges, on this machine.")
    threshold: float = efface.setting(
        0.5, min=0.01, max=0.99, help="Probability, against the next best text alone, from which a concept is shown."
    )
    device: str = efface.setting("cpu", help="Where the judge computes, such as cuda:0.")

    only_by_name = True

    @property
    def digest(self) -> str:  # type: ignore[override]
        """Changes with the judge's files, the threshold and every text."""
        judged = [f"{one.text}: {text}" for one in self.concepts() for text in self.texts(one.kind)]
        return text_digest([self.judge.digest if self.clip else "no judge", str(self.threshold), *sorted(set(judged))])

    @property
    def facts(self) -> dict[str, str | float]:
        return {**self.judge.facts, "threshold": self.threshold} if self.clip else {}

    def prepare(self) -> None:
        if self.clip is None:
            raise BadSetting(
                f"Suite {self.name!r} judges by a CLIP model that lies on this machine: name its folder with the "
                f"setting clip, such as --suite {self.name} --suite-set clip=clip-vit-base-patch32"
            )
        self.judge  # noqa: B018

    def accepts(self, model: efface.Model) -> bool:
        """Any pipeline that makes pictures from texts."""
        return hasattr(model.pipe, "tokenizer") and hasattr(model.pipe, "vae")

    def found(self, images: Sequence[Image], concept: str) -> NDArray[np.float64]:
        """The concept's share of the probability that is left to it and the next best text."""
        import numpy as np

        from efface_judges.threshold import sureness

        texts = self.texts(self.known(concept).kind)
        place = list(texts).index(concept)
        logits = self.judge.scale * self.judge.pictures(images) @ self.judge.texts(list(texts.values())).T
        own = logits[:, place].copy()
        logits[:, place] = -np.inf
        return sureness(np.exp(-np.logaddexp(0, logits.max(1) - own)), self.threshold)

    def unrelated(self, concept: str) -> Sequence[str]:
        return UNRELATED

    def features(self, images: Sequence[Image]) -> NDArray[np.float64]:
        return self.judge.pictures(images)

    def rivals(self, kind: Kind) -> Sequence[str]:
        """Texts that a picture of none of the concepts is nearest to."""
        return ()

    def caption(self, concept: efface.SuiteConcept) -> str:
        """The text that stands for a concept."""
        return CAPTIONS[concept.kind].replace("{}", concept.text)

    def texts(self, kind: Kind) -> dict[str, str]:
        """What a picture may be nearest to: the captions of a kind by concept, then the rivals."""
        return {one.text: self.caption(one) for one in self.concepts(kind)} | {one: one for one in self.rivals(kind)}

    def known(self, concept: str) -> efface.SuiteConcept:
        known = {one.text: one for one in self.concepts()}
        if concept not in known:
            raise BadConcept(unknown("concept", concept, known, have=f"{self.name} can tell"))
        return known[concept]

    @cached_property
    def judge(self) -> Clip:
        """The model, loaded when it is first asked."""
        from efface_judges.clip import Clip

        return Clip.load(self.clip or "", self.device)


CAPTIONS: dict[Kind, str] = {
    "object": "a photo of the {}",
    "person": "a photo of {}",
    "style": "a painting in the style of {}",
    "explicit": "a photo of {}",
}
