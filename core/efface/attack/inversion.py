"""Concept inversion: new words are learnt whose vectors make the edited model draw the concept again.

After Pham et al., Circumventing Concept Erasure Methods for Text-to-Image Generative Models (ICLR 2024,
arXiv 2308.01508), who learn one word by textual inversion on pictures of the concept. Here they are several, and the
pictures are the base model's own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from efface.attack.found import Found
from efface.attack.likeness import Likeness, without_weight_gradients
from efface.attack.words import Word, check_length, embeddings, encoders, meaning, placeholders
from efface.errors import EffaceError
from efface.method import Progress
from efface.model import Model
from efface.settings import setting
from efface.wording import counted


@dataclass(frozen=True)
class Inversion:
    """The vectors begin as the concept's own ones and are trained by Adam."""

    name: ClassVar[str] = "inversion"
    words: int = setting(4, min=1, help="new words in place of the concept")
    steps: int = setting(300, min=1, help="steps of the training")
    batch: int = setting(4, min=1, help="noised pictures in a step")
    rate: float = setting(0.1, min=0, help="learning rate, in standard deviations of the model's embeddings")

    def check(self, model: Model, concept: str, template: str) -> None:
        """EffaceError where the model has too few words, or its prompts no room for them."""
        _, prompt = self._prompt(model.pipe, concept, template)
        check_length(model, concept, template, prompt, self.words)

    def search(self, likeness: Likeness, concept: str, template: str, seed: int, progress: Progress) -> Found:
        """Vectors for new words in place of the concept, in a template."""
        pipe = likeness.model.pipe
        named, prompt = self._prompt(pipe, concept, template)
        vectors = {name: table.requires_grad_() for name, table in self._first(likeness, concept).items()}
        generator = torch.Generator().manual_seed(seed)
        losses: list[float] = []
        rates = {name: self.rate * float(table.float().std()) for name, table in embeddings(pipe).items()}
        optimizer = torch.optim.Adam([{"params": [vectors[name]], "lr": rate} for name, rate in rates.items()])
        with meaning(pipe, named, vectors), without_weight_gradients(pipe):
            for step in range(self.steps):
                progress(step, self.steps, "inversion")
                encoded = likeness.model.encode([prompt], gradients=True)
                loss = likeness.loss(encoded, likeness.drawn(self.batch, generator))
                if not loss.requires_grad:
                    raise EffaceError("No gradient reaches the words: an edit on this pipeline stops it")
                losses.append(float(loss.detach()))
                likeness.check_first(losses[0])
                self._check_went_well(math.isfinite(losses[-1]), step)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            last = likeness.model.encode([prompt]).hidden
            self._check_went_well(bool(last.isfinite().all()), self.steps)
        progress(self.steps, self.steps, "inversion")
        return Found(prompt, tuple(losses), named, {name: table.detach() for name, table in vectors.items()})

    def _prompt(self, pipe: Any, concept: str, template: str) -> tuple[tuple[Word, ...], str]:
        named = placeholders(pipe, self.words, (concept, template))
        return named, template.replace("{}", " ".join(word.text for word in named))

    def _check_went_well(self, finite: bool, steps: int) -> None:
        if not finite:
            raise EffaceError(
                f"After {counted(steps, 'step')} the model makes no finite numbers of the new words' vectors: take a "
                f"smaller rate (setting 'rate', now {self.rate:g})"
            )

    def _first(self, likeness: Likeness, concept: str) -> dict[str, Tensor]:
        """The concept's own embeddings, over and over until there are enough."""
        found = {}
        for name, (encoder, tokenizer) in encoders(likeness.model.pipe).items():
            ids = tokenizer(concept, add_special_tokens=False).input_ids
            rows = [ids[index % len(ids)] for index in range(self.words)]
            found[name] = encoder.get_input_embeddings().weight.detach()[rows].float().clone()
        return found
