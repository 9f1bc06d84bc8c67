"""What a demonstration asks for and shows where nobody says: the choices of a suite."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from efface.concept import Concept, Kind, Request, same
from efface.errors import BadConcept
from efface.evaluation.targets import find, says
from efface.report.prompt import Prompt
from efface.settings import describe
from efface.suite import Scene, Suite, SuiteConcept

FEW = 3


@dataclass(frozen=True)
class Wish:
    """What somebody asked for; None or nothing where they left it open."""

    concept: str | None = None
    anchor: str | None = None
    synonyms: tuple[str, ...] = ()
    kind: Kind | None = None
    keep: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()

    def request(self, suite: Suite | None) -> Request:
        """The wish with what it leaves open as in the suite's example; BadConcept where neither names a concept.

        The example's anchor is for the example's concept alone. Of its keep list all goes that names the concept; what
        the example erases is kept when something else is erased.
        """
        usual = self._usual(suite)
        (concept,) = usual.concepts
        anchor = concept.anchor if self.anchor is None else self.anchor
        erased = Concept(concept.text, anchor, self.synonyms or concept.synonyms, self.kind or concept.kind)
        words = (*erased.phrases, *_words_of(suite, erased.text))
        keep = self.keep or tuple(prompt for prompt in usual.keep if not _names(prompt, words))
        return Request((erased,), keep, self.templates or usual.templates)

    def _usual(self, suite: Suite | None) -> Request:
        if self.concept is None and suite is None:
            raise BadConcept("No installed suite has an example for this model: say what to erase with --concept")
        example = suite.example if suite else None
        if example and (self.concept is None or same(self.concept) == same(example.concepts[0].text)):
            return example
        text = str(self.concept)
        known = find(suite, text) if suite else None
        if suite is None or example is None or known is None:
            return Request((Concept(text),))
        alike = known.kind == example.concepts[0].kind
        templates = example.templates if alike else tuple(suite.templates(known.kind))
        spared = (example.prompts(concept.text)[0] for concept in example.concepts)
        return Request((Concept(text, kind=known.kind),), (*spared, *example.keep), templates or ("{}",))


def prompts(suite: Suite | None, request: Request) -> tuple[Prompt, ...]:
    """What to show of a request with one concept.

    Where the suite knows the concept: it, a held-out synonym, a neighbour, a two-object scene and an unrelated
    prompt, as far as there are such, none with the anchor in it. Otherwise a picture of the concept.
    """
    (concept,) = request.concepts
    known = find(suite, concept.text) if suite else None
    if suite is None or known is None:
        of = "in the style of" if concept.kind == "style" else "of"
        return (Prompt(f"a picture {of} {concept.text}", "concept"),)
    return tuple(_chosen(suite, known, concept))


def anchored(request: Request, neutral: str) -> Request:
    """The request with the anchors that will be used: `neutral` where a concept has none."""
    concepts = (replace(one, anchor=neutral) if one.anchor is None else one for one in request.concepts)
    return replace(request, concepts=tuple(concepts))


def together(suite: Suite) -> tuple[Request, ...]:
    """A request for each concept that the suite wants erased together; BadConcept where it names none."""
    named = getattr(suite, "stack", ())  # a suite of its own class may be older than this
    if not named:
        raise BadConcept(f"The suite {suite.name} names no concepts to erase together")
    return tuple(Wish(one.text, one.anchor, one.synonyms, one.kind).request(suite) for one in named)


def shown_together(suite: Suite, requests: Sequence[Request]) -> tuple[Prompt, ...]:
    """What to show of erasures on one pipeline: each concept, and then things that should stay.

    Those are neighbours of the concepts, scenes of one of them beside something else, and unrelated prompts, none
    with an anchor or another erased concept in it.
    """
    concepts = [request.concepts[0] for request in requests]
    known = [one for one in (find(suite, concept.text) for concept in concepts) if one]
    avoided = [word for concept in concepts for word in (*concept.phrases, concept.anchor or "") if word]
    shown = [one.text for one in suite.concepts() if set(one.shows) & {each.text for each in known}]
    near = [find(suite, name) for one in known for name in one.neighbours if not _names(name, [*avoided, *shown])]
    scenes = [islice(_scenes(suite, one, avoided), 1) for one in known]
    calm = [set(suite.unrelated(one.text)) for one in known]
    unrelated = [prompt for prompt in suite.unrelated(known[0].text) if not _names(prompt, avoided)] if known else []
    stays = (
        *(Prompt(_in_template(suite, one, one.text), "neighbour") for one in near if one),
        *(Prompt(scene.prompt, "scene") for found in scenes for scene in found),
        *(Prompt(prompt, "control") for prompt in unrelated if all(prompt in each for each in calm)),
    )
    asked = (
        Prompt(_in_template(suite, one, concept.text), "concept") for one, concept in zip(known, concepts, strict=True)
    )
    return (*asked, *_few(stays))


def _few(prompts: Iterable[Prompt]) -> list[Prompt]:
    """At most three of each role."""
    found: dict[str | None, dict[str, Prompt]] = {}
    for prompt in prompts:
        found.setdefault(prompt.role, {}).setdefault(prompt.text, prompt)
    return [prompt for each in found.values() for prompt in islice(each.values(), FEW)]


def _scenes(suite: Suite, known: SuiteConcept, avoided: Sequence[str]) -> Iterator[Scene]:
    """Scenes of a concept in which nothing else is erased."""
    others = [word for word in avoided if same(word) != same(known.text)]
    return (scene for scene in suite.scenes(known.text) if not _names(scene.prompt, others))


def unseen(suite: Suite | None, method: type) -> dict[str, tuple[str, ...]]:
    """The settings by which a fit draws none of a suite's held-out words: `exclude`, of a method that has it.

    A method that takes words from the tokenizer would know them otherwise, and they measure what it does not know.
    """
    if suite is None or "exclude" not in {entry.name for entry in describe(method)}:
        return {}
    return {"exclude": tuple(word for concept in suite.concepts() for word in concept.held_out)}


def _chosen(suite: Suite, known: SuiteConcept, concept: Concept) -> Iterator[Prompt]:
    avoided = [concept.anchor] if concept.anchor else []
    yield Prompt(_in_template(suite, known, concept.text), "concept")
    for word in islice((word for word in known.held_out if not _names(word, concept.phrases)), 1):
        yield Prompt(_in_template(suite, known, word), "synonym")
    near = (find(suite, name) for name in known.neighbours if not _names(name, avoided))
    for neighbour in islice((one for one in near if one), 1):
        yield Prompt(_in_template(suite, neighbour, neighbour.text), "neighbour")
    for scene in islice((one for one in suite.scenes(known.text) if not _names(one.prompt, avoided)), 1):
        yield Prompt(scene.prompt, "scene")
        avoided.append(scene.other)
    for prompt in islice((one for one in suite.unrelated(known.text) if not _names(one, avoided)), 1):
        yield Prompt(prompt, "control")


def _in_template(suite: Suite, known: SuiteConcept, word: str) -> str:
    return next(iter(suite.templates(known.kind)), "{}").replace("{}", word)


def _words_of(suite: Suite | None, text: str) -> tuple[str, ...]:
    known = find(suite, text) if suite else None
    return (known.text, *known.synonyms, *known.held_out) if known else ()


def _names(prompt: str, words: Iterable[str]) -> bool:
    return any(says(prompt, word) for word in words)
