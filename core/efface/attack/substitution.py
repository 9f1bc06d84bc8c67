"""Token substitution: words of the vocabulary are put before a prompt until the concept comes back.

The greedy coordinate gradient of Zou et al. (arXiv 2307.15043) on the denoising loss, by which Zhang et al.
(UnlearnDiffAtk, ECCV 2024, arXiv 2310.11868) attack erasures: the gradient for each place says which words are worth
trying there, a few of them are tried, and the best stays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from efface.attack.found import Found
from efface.attack.likeness import Likeness, Noised, without_weight_gradients
from efface.attack.words import Word, check_length, embeddings, meaning, words
from efface.errors import EffaceError
from efface.method import Progress
from efface.model import Model
from efface.settings import setting


@dataclass(frozen=True)
class Substitution:
    """Each round one place before the prompt gets the best of some candidates, if that lowers the loss."""

    name: ClassVar[str] = "substitution"
    words: int = setting(4, min=1, help="words before the prompt")
    rounds: int = setting(40, min=1, help="rounds of the search, one place each")
    tries: int = setting(8, min=1, help="candidates that are tried in a round")
    shortlist: int = setting(32, min=1, help="words with the steepest gradient, of which candidates are drawn")
    batch: int = setting(8, min=1, help="noised pictures, always the same, on which losses are compared")

    def check(self, model: Model, concept: str, template: str) -> None:
        """EffaceError where the model has too few words, or its prompts no room for them."""
        prompt = _prompt(self._pool(model.pipe)[: self.words], template.replace("{}", concept))
        check_length(model, concept, template, prompt, self.words)

    def search(self, likeness: Likeness, concept: str, template: str, seed: int, progress: Progress) -> Found:
        """Words before the concept's own prompt, in a template."""
        generator = torch.Generator().manual_seed(seed)
        pool = self._pool(likeness.model.pipe)
        plain, given = template.replace("{}", concept), likeness.drawn(self.batch, generator)
        order = torch.randperm(len(pool), generator=generator).tolist()
        chosen = [pool[index] for index in order[: self.words]]
        losses = [self._loss(likeness, chosen, plain, given)]
        likeness.check_first(losses[0])
        with without_weight_gradients(likeness.model.pipe):
            for turn in range(self.rounds):
                progress(turn, self.rounds, "substitution")
                place = turn % self.words
                candidates = self._candidates(likeness, chosen, plain, given, place, pool, generator)
                tried = [[*chosen[:place], word, *chosen[place + 1 :]] for word in candidates]
                found = [self._loss(likeness, one, plain, given) for one in tried]
                best = min(range(len(found)), key=found.__getitem__)
                if found[best] < losses[-1]:
                    chosen = tried[best]
                losses.append(min(found[best], losses[-1]))
        progress(self.rounds, self.rounds, "substitution")
        return Found(_prompt(chosen, plain), tuple(losses))

    def _pool(self, pipe: Any) -> list[Word]:
        """What may be put in."""
        pool = [word for word in words(pipe) if word.text.isalnum()]
        if len(pool) <= self.words:
            raise EffaceError(
                f"The model's vocabulary has only {len(pool)} words to put in, and {self.words} are taken"
            )
        return pool

    @torch.no_grad()
    def _loss(self, likeness: Likeness, chosen: list[Word], plain: str, given: Noised) -> float:
        """Infinite where it is no number, so that such words are never the best."""
        loss = float(likeness.loss(likeness.model.encode([_prompt(chosen, plain)]), given))
        return loss if math.isfinite(loss) else math.inf

    def _candidates(
        self,
        likeness: Likeness,
        chosen: list[Word],
        plain: str,
        given: Noised,
        place: int,
        pool: list[Word],
        generator: torch.Generator,
    ) -> list[Word]:
        """Some of the words that would lower the loss most at one place, by its gradient there."""
        slopes = self._slopes(likeness, chosen, plain, given, place)
        tokens = [word.token for word in pool]
        scores = sum(embeddings(likeness.model.pipe)[name][tokens].float() @ slope for name, slope in slopes.items())
        assert isinstance(scores, Tensor)
        steepest = scores.topk(min(self.shortlist, len(pool)), largest=False).indices
        some = torch.randperm(len(steepest), generator=generator)[: self.tries]
        return [pool[int(index)] for index in steepest[some.to(steepest.device)]]

    def _slopes(
        self, likeness: Likeness, chosen: list[Word], plain: str, given: Noised, place: int
    ) -> dict[str, Tensor]:
        """The gradient of the loss for the word at one place, (D,) for each text encoder.

        A word that stands at several places counts at all of them; it only orders candidates.
        """
        word, tables = chosen[place], embeddings(likeness.model.pipe)
        own = {name: table[[word.token]].float().clone().requires_grad_() for name, table in tables.items()}
        with meaning(likeness.model.pipe, [word], own):
            loss = likeness.loss(likeness.model.encode([_prompt(chosen, plain)], gradients=True), given)
        if not loss.requires_grad:
            raise EffaceError("No gradient reaches the words: an edit on this pipeline stops it")
        slopes = torch.autograd.grad(loss, list(own.values()))
        return {name: slope[0] for name, slope in zip(own, slopes, strict=True)}


def _prompt(chosen: list[Word], plain: str) -> str:
    return " ".join([*(word.text for word in chosen), plain])
