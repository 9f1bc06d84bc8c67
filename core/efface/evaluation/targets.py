"""What is measured of an erased concept: the words for it, for its anchor, and for what should stay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from efface.concept import Concept, Request, same
from efface.errors import BadConcept, unknown
from efface.evaluation.draws import Draw, other_seeds, spread
from efface.suite import Scene, Suite, SuiteConcept


@dataclass(frozen=True)
class Target:
    """One erased concept with the pictures that its figures come from.

    `anchor` is set where it is an object that the suite can tell. `own` and `held_out` are pictures of the concept by
    its own word and by held-out ones, `others` of each concept that should stay, `never_kept` those of them that no
    keep list names, `scenes` with what stands beside the concept. Of the anchor there are base pictures at the same
    seeds and at others.
    """

    concept: SuiteConcept
    anchor: SuiteConcept | None
    own: tuple[Draw, ...]
    held_out: tuple[Draw, ...]
    others: Mapping[str, tuple[Draw, ...]]
    never_kept: tuple[str, ...]
    scenes: tuple[tuple[Scene, tuple[Draw, ...]], ...]
    unrelated: tuple[Draw, ...]
    anchors: tuple[Draw, ...]
    more_anchors: tuple[Draw, ...]

    @property
    def compared(self) -> list[Draw]:
        """Everything that is drawn before and after."""
        others = [draw for draws in self.others.values() for draw in draws]
        scenes = [draw for _, draws in self.scenes for draw in draws]
        return [*self.own, *self.held_out, *others, *scenes, *self.unrelated]

    @property
    def crossed(self) -> list[Draw]:
        """What shows how erasures meant for something else change this concept and those that should stay."""
        return [*self.own, *(draw for draws in self.others.values() for draw in draws)]

    @property
    def base_only(self) -> list[Draw]:
        return [*self.anchors, *self.more_anchors]


@dataclass(frozen=True)
class Targets:
    """How a stack of requests becomes targets: by what a suite knows, with these seeds, in batches of this size.

    `neutral` is the model's prompt for nothing special. Concepts that an erased one is seen in are left out of what
    should stay, and so are scenes with another erased concept.
    """

    suite: Suite
    requests: tuple[Request, ...]
    neutral: str
    seeds: tuple[int, ...]
    batch_size: int

    def all(self) -> tuple[Target, ...]:
        """One target per erased concept that the suite measures, in the order of the requests.

        BadConcept for a concept that the suite does not know.
        """
        erased: dict[str, Concept] = {}
        for concept in self._concepts():
            erased.setdefault(known(self.suite, concept.text).text, concept)
        measured = set(self.suite.measured(tuple(erased)))
        return tuple(
            self._target(known(self.suite, text), concept, erased)
            for text, concept in erased.items()
            if text in measured
        )

    def _target(self, told: SuiteConcept, asked: Concept, erased: Iterable[str]) -> Target:
        others = [one for one in self.suite.concepts() if not {one.text, *one.shows} & set(erased)]
        names = {one.text for one in others}
        anchor = find(self.suite, asked.anchor or "")
        anchors = self._anchor_prompts(told, asked)
        return Target(
            concept=told,
            anchor=anchor if anchor is not None and anchor.kind == "object" else None,
            own=self._spread(self._prompts(told, [told.text])),
            held_out=self._spread(self._prompts(told, self._held_out(told))),
            others={one.text: self._few(self._prompts(one, [one.text])) for one in others},
            never_kept=tuple(one.text for one in others if not one.kept and not self._kept(one)),
            scenes=self._scenes([one for one in self.suite.scenes(told.text) if one.other in names]),
            unrelated=self._spread(self._unrelated(told, erased)),
            anchors=self._spread(anchors),
            more_anchors=spread(anchors, other_seeds(self.seeds), self.batch_size),
        )

    def _concepts(self) -> list[Concept]:
        return [concept for request in self.requests for concept in request.concepts]

    def _prompts(self, told: SuiteConcept, words: Sequence[str]) -> list[str]:
        """Each template with each word in turn."""
        return [template.replace("{}", word) for template in self.suite.templates(told.kind) for word in words]

    def _held_out(self, told: SuiteConcept) -> list[str]:
        """Held-out words, less those that a request erases: on these nothing is being generalised."""
        erased = {same(phrase) for concept in self._concepts() for phrase in concept.phrases}
        return [word for word in told.held_out if same(word) not in erased]

    def _kept(self, told: SuiteConcept) -> bool:
        prompts = [prompt for request in self.requests for prompt in request.keep]
        return any(says(prompt, word) for prompt in prompts for word in (told.text, *told.synonyms))

    def _scenes(self, scenes: Sequence[Scene]) -> tuple[tuple[Scene, tuple[Draw, ...]], ...]:
        shown = {scene.prompt: scene for scene in scenes}
        draws = self._spread(list(shown))
        return tuple((scene, tuple(draw for draw in draws if draw.prompt == prompt)) for prompt, scene in shown.items())

    def _unrelated(self, told: SuiteConcept, erased: Iterable[str]) -> list[str]:
        allowed = [set(self.suite.unrelated(text)) for text in erased]
        return [prompt for prompt in self.suite.unrelated(told.text) if all(prompt in each for each in allowed)]

    def _anchor_prompts(self, told: SuiteConcept, asked: Concept) -> list[str]:
        """The neutral or empty prompt as it is; any other anchor in the templates of its kind."""
        words = self.neutral if asked.anchor is None else asked.anchor
        if not words or same(words) == same(self.neutral):
            return [words]
        return self._prompts(find(self.suite, words) or told, [words])

    def _spread(self, prompts: Sequence[str]) -> tuple[Draw, ...]:
        return spread(prompts, self.seeds, self.batch_size)

    def _few(self, prompts: Sequence[str]) -> tuple[Draw, ...]:
        """A fifth of the seeds, two at least: there are many other concepts."""
        return spread(prompts, self.seeds[: max(2, len(self.seeds) // 5)], self.batch_size)


def find(suite: Suite, text: str) -> SuiteConcept | None:
    """What the suite knows by a text or a synonym."""
    named = (one for one in suite.concepts() if same(text) in map(same, (one.text, *one.synonyms)))
    return next(named, None)


def known(suite: Suite, text: str) -> SuiteConcept:
    """The same; BadConcept with what the suite knows when there is none."""
    found = find(suite, text)
    if found is None:
        raise BadConcept(unknown("concept", text, [one.text for one in suite.concepts()], f"{suite.name} can tell"))
    return found


def says(prompt: str, words: str) -> bool:
    """Whether a prompt has these words in it, as words."""
    return f" {same(words)} " in f" {same(prompt)} "
