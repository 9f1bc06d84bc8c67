"""From erasures on a pipeline to the share of pictures in which the concept is back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from efface.attack.found import Found
from efface.attack.inversion import Inversion
from efface.attack.likeness import Likeness
from efface.attack.substitution import Substitution
from efface.concept import Concept, Request
from efface.editor import Editor
from efface.errors import EffaceError, unknown
from efface.evaluation.evaluating import described, libraries, stacked
from efface.evaluation.intervals import rate
from efface.evaluation.sampler import fast_sampler
from efface.evaluation.scores import Estimate
from efface.evaluation.targets import known
from efface.generating import check_steps, generate
from efface.method import Progress, silent
from efface.model import Model
from efface.report.imprint import weights_digest
from efface.report.subject import Subject
from efface.settings import build
from efface.suite import SHOWN, Suite
from efface.untouched import untouched

Search = Inversion | Substitution
SEARCHES: Mapping[str, type[Inversion] | type[Substitution]] = {"inversion": Inversion, "substitution": Substitution}
FIRST_OF_SEARCH = 10_000
EXAMPLES = 16


@dataclass(frozen=True)
class Attack:
    """What was found and how often it works: shares of pictures that show the concept, by the suite's judgement.

    `base`: the plain prompt before anything was erased; `erased`: the same with the erasures on; `success`: the input
    that was found, with the erasures on; `upper`: that input without them. None where no suite judges. `made` has all
    else that the figures depend on, as JSON in the words of an evaluation.
    """

    concept: str
    search: Search
    found: Found
    seeds: tuple[int, ...]
    base: Estimate | None
    erased: Estimate | None
    success: Estimate | None
    upper: Estimate | None
    made: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        shares = {name: getattr(self, name) for name in ("base", "erased", "success", "upper")}
        return {
            "concept": self.concept,
            "attack": self.search.name,
            "settings": asdict(self.search),
            "seeds": list(self.seeds),
            **{name: None if share is None else share.to_json() for name, share in shares.items()},
            "found": self.found.to_json(),
            **self.made,
        }


def attack(
    pipe: Any,
    concept: str,
    *,
    search: str | Search = "inversion",
    template: str | None = None,
    suite: Suite | None = None,
    seeds: Sequence[int] = range(20),
    seed: int = 0,
    steps: int = 15,
    guidance: float | None = None,
    batch_size: int = 10,
    model: str | None = None,
    progress: Progress = silent,
) -> Attack:
    """Look for an input that brings the concept back on a pipeline with erasures, and try it with every seed.

    The attacker has the weights, the erasures and pictures that the base model made of the concept
    (EXAMPLES, with seeds of their own). `search` is "inversion", "substitution" or an object with its settings;
    `template` holds {} where the concept goes, the suite's first one unless given; `model` is what the pipeline was
    loaded by, for the report. Everything is as before afterwards. Raises before a picture is made: BadConcept for a
    concept that the suite cannot tell, a template without a place for it or prompts that the model would cut off,
    EffaceError.
    """
    chosen, reader = search_of(search, {}) if isinstance(search, str) else search, Model(pipe)
    shape = template_for(concept, template, suite)
    told = known(suite, concept).text if suite else concept
    chosen.check(reader, concept, shape)
    check_steps(pipe, steps)
    strength = guidance if guidance is not None else suite.guidance if suite else 7.5
    drawing = _Drawing(pipe, suite, told, tuple(seeds), steps, strength, batch_size)
    plain = Found(shape.replace("{}", concept), ())
    examples = range(FIRST_OF_SEARCH, FIRST_OF_SEARCH + EXAMPLES)
    with _off(pipe):
        latents = drawing.latents(plain, examples)
        base = drawing.share(plain)
        subject = _subject(pipe, model)
    erased = drawing.share(plain)
    found = chosen.search(Likeness(reader, latents), concept, shape, seed, progress)
    success = drawing.share(found)
    with _off(pipe):
        upper = drawing.share(found)
    editor = Editor.of(pipe)
    made = {
        "template": shape,
        "seed": seed,
        "examples": {"seeds": list(examples), "used": len(latents)},
        "threshold": SHOWN,
        "sampling": drawing.to_json(),
        "model": subject,
        "suite": None if suite is None else described(suite),
        "erasures": [] if editor is None else stacked(editor),
    }
    return Attack(concept, chosen, found, tuple(seeds), base, erased, success, upper, made)


def template_for(concept: str, template: str | None, suite: Suite | None) -> str:
    """The given template, else the suite's first for the concept; BadConcept for one that does not hold {} once."""
    if template is not None:
        return Request((Concept(concept),), templates=(template,)).templates[0]
    return suite.templates(known(suite, concept).kind)[0] if suite is not None else "a picture of {}"


def _subject(pipe: Any, model: str | None) -> dict[str, Any]:
    """The model by name and weights."""
    name = model or str(getattr(pipe, "name_or_path", "")) or type(pipe).__name__
    return Subject.of(pipe, name).to_json() | {"weights_sha256": weights_digest(pipe)}


@dataclass(frozen=True)
class _Drawing:
    """Pictures of found inputs on the pipeline as it is, and whether they show the concept."""

    pipe: Any
    suite: Suite | None
    concept: str
    seeds: tuple[int, ...]
    steps: int
    guidance: float
    batch_size: int

    def share(self, found: Found) -> Estimate | None:
        if self.suite is None:
            return None
        pictures = self._drawn(found, self.seeds)
        return rate(np.asarray(self.suite.found(pictures, self.concept)) >= SHOWN)

    def latents(self, found: Found, seeds: Sequence[int]) -> torch.Tensor:
        """Those that show the concept, (n, C, h, w); all of them where nobody judges."""
        drawn = torch.stack(list(self._drawn(found, seeds, output_type="latent")))
        if self.suite is None:
            return drawn
        pictures = self._drawn(found, seeds)
        shown = np.asarray(self.suite.found(pictures, self.concept)) >= SHOWN
        if not shown.any():
            raise EffaceError(
                f"The base model shows {self.concept!r} in none of {len(seeds)} pictures: nothing to bring back"
            )
        return drawn[torch.from_numpy(shown)]

    def to_json(self) -> dict[str, Any]:
        """How the pictures are made."""
        with fast_sampler(self.pipe) as sampler:
            scheduler = type(sampler).__name__
        how = {"steps": self.steps, "guidance": self.guidance, "batch_size": self.batch_size}
        return {"scheduler": scheduler, **how, "libraries": libraries()}

    def _drawn(self, found: Found, seeds: Sequence[int], **options: Any) -> Any:
        with fast_sampler(self.pipe), found.understood(self.pipe) as prompt:
            return generate(
                self.pipe,
                [prompt],
                seeds,
                steps=self.steps,
                guidance=self.guidance,
                batch_size=self.batch_size,
                **options,
            )


def search_of(name: str, settings: Mapping[str, object]) -> Search:
    """A search by its name, with its settings; EffaceError or BadSetting lists what there is."""
    if name not in SEARCHES:
        raise EffaceError(unknown("attack", name, SEARCHES, "there are"))
    return build(SEARCHES[name], settings)


@contextmanager
def _off(pipe: Any) -> Iterator[None]:
    """Erasures off inside."""
    if Editor.of(pipe) is None:
        yield
        return
    with untouched(pipe):
        yield
