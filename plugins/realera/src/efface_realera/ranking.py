"""How like a concept the phrases of the bank are, and which of them are its neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

import efface
from efface_realera.bounds import Bounds
from efface_realera.rows import Tokens, positions

LATENTS = 2
NOISINESS = 0.8  # of the noise schedule: where a picture's subject is being decided


@dataclass(frozen=True)
class Ranked:
    """Phrases with their cosines to a concept, most alike first: neighbours, and those ranked after the window."""

    near: tuple[tuple[str, float], ...]
    beyond: tuple[tuple[str, float], ...]


def ranked(phrases: Sequence[str], cosines: Tensor, bounds: Bounds, near: int, beyond: int) -> Ranked:
    """The `near` most alike inside the window, and of those below it the `beyond` most alike."""
    order = cosines.argsort(descending=True, stable=True).tolist()
    listed = [(phrases[index], round(float(cosines[index]), 4)) for index in order]
    inside = [entry for entry in listed if bounds.lowest <= entry[1] <= bounds.highest]
    after = [entry for entry in listed if bounds.floor <= entry[1] < bounds.below]
    return Ranked(tuple(inside[:near]), tuple(after[:beyond]))


@dataclass(frozen=True, eq=False)
class Eye:
    """Compares prompts by the direction in which they pull noisy latents (n, C, h, w) at a timestep.

    That direction is eps(x_t, c) - eps(x_t, neutral), as in classifier-free guidance. Reconstruction: the paper does
    not say how concepts are compared beyond distance and cosine of their embeddings. On the embedded model these
    cosines are above 0.99 for synonyms and below 0.68 for other words; those of the embeddings overlap.
    """

    model: efface.Model
    latents: Tensor
    timestep: Tensor
    batch_size: int

    @classmethod
    def of(cls, model: efface.Model, generator: torch.Generator, batch_size: int) -> Eye:
        """Latents that the neutral prompt has led to, most of the way still before them."""
        seeds = torch.randint(2**31, (LATENTS,), generator=generator).tolist()
        timestep = int(NOISINESS * model.pipe.scheduler.config.num_train_timesteps)
        neutral = model.encode([model.neutral] * LATENTS)
        latents = model.denoise(neutral, model.noise(seeds), guidance=1.0, until=timestep)
        return cls(model, latents, torch.tensor(timestep, device=model.device), batch_size)

    def likeness(self, concept: efface.Encoded, others: efface.Encoded) -> Tensor:
        """The mean cosine over the latents, for each prompt the largest over the concept's own, (n,)."""
        ours, theirs = self._directions(concept), self._directions(others)
        return torch.einsum("knd,kcd->knc", theirs, ours).mean(0).amax(1).cpu()

    @torch.no_grad()
    def _directions(self, prompts: efface.Encoded) -> Tensor:
        """Unit directions (latents, n, C h w)."""
        neutral = self._predicted(self.model.encode([self.model.neutral]))
        rows = torch.split(torch.arange(len(prompts.prompts)), self.batch_size)
        found = torch.cat([self._predicted(prompts.rows(part.tolist())) for part in rows], 1)
        return normalize(found - neutral, dim=2)

    def _predicted(self, prompts: efface.Encoded) -> Tensor:
        count = len(prompts.prompts)
        each = [self.model.predict(x.expand(count, *x.shape), self.timestep, prompts) for x in self.latents]
        return torch.stack(each).flatten(2).float()


def shortlist(
    concept: efface.Encoded, bank: efface.Encoded, tokens: Tokens, blocks: Sequence[slice], most: int
) -> list[int]:
    """The rows of the bank whose embeddings are most like those of any of the concept's prompts.

    Cosines of the tokens that stand for the phrase, after the mean of the bank is taken off and each encoder's part
    is divided by its spread: as they come, the embeddings of all phrases point the same way.
    """
    if len(bank.prompts) <= most:
        return list(range(len(bank.prompts)))
    length = min(len(positions(each, row, tokens)) for each in (concept, bank) for row in range(len(each.prompts)))
    theirs = features(bank, tokens)[:, :length].float()
    ours, mean = features(concept, tokens)[:, :length].float(), theirs.mean(0)
    spread = torch.cat([(theirs - mean)[..., block].square().mean().sqrt().expand(_width(block)) for block in blocks])
    ours, theirs = (normalize(((part - mean) / spread).flatten(1), dim=1) for part in (ours, theirs))
    return (theirs @ ours.T).amax(1).argsort(descending=True, stable=True)[:most].tolist()


def features(encoded: efface.Encoded, tokens: Tokens) -> Tensor:
    """The tokens that stand for each phrase, (n, p, D), with p the fewest that a row has."""
    places = [positions(encoded, row, tokens) for row in range(len(encoded.prompts))]
    shortest = min(map(len, places))
    return torch.stack([encoded.hidden[row, each[:shortest]] for row, each in enumerate(places)])


def _width(block: slice) -> int:
    return int(block.stop - block.start)
