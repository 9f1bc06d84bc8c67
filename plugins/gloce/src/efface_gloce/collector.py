"""Features of prompts on their way through the U-Net, reduced to statistics as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

import efface
from efface_gloce.archive import Archive, digest
from efface_gloce.gate import Gates
from efface_gloce.moments import Moments, Running, grid_size, pyramid
from efface_gloce.sampling import Listener, Sampling, trajectories

Rows = Mapping[str, slice]


class Collector:
    """Collects statistics of prompts over several seeds, in batches, unless the archive has them."""

    def __init__(
        self,
        model: efface.Model,
        places: Sequence[efface.HookPoint],
        sampling: Sampling,
        seeds: Sequence[int],
        batch: int,
        run: efface.Run,
        archive: Archive,
    ) -> None:
        self.model = model
        self.places = list(places)
        self.sampling = sampling
        self.seeds = tuple(seeds)
        self.batch = batch
        self.run = run
        self.archive = archive

    def moments(self, prompts: Sequence[str], what: str) -> Iterator[dict[str, Moments]]:
        """For each prompt in turn the moments of its features at each point.

        They are over seeds, steps and a pyramid of each grid. No more prompts are in the making than are in a batch.
        """
        known = {prompt: self._content(prompt, self.seeds) for prompt in prompts}
        missing = [prompt for prompt in prompts if not self.archive.has_moments(prompt, known[prompt])]
        collected = self._moments(missing, what)
        for prompt in prompts:
            yield next(collected) if prompt in missing else self.archive.moments(prompt, known[prompt])

    def _moments(self, prompts: Sequence[str], what: str) -> Iterator[dict[str, Moments]]:
        running: dict[str, dict[str, Running]] = {prompt: {} for prompt in prompts}

        def hear(batch: Rows) -> Listener:
            def listen(point: efface.HookPoint, features: Tensor, call: efface.Call) -> None:
                high, wide = call.sample.shape[-2:]
                size = grid_size((high, wide), features.shape[1])
                for prompt, rows in batch.items():
                    running[prompt].setdefault(point.name, Running()).add(pyramid(features[rows], size))

            return listen

        for prompt in self._collected(prompts, self.seeds, hear, what):
            found = {name: one.moments().to("cpu") for name, one in running.pop(prompt).items()}
            self.archive.keep_moments(prompt, self._content(prompt, self.seeds), found)
            yield found

    def peaks(
        self,
        wanted: Mapping[str, Sequence[int]],
        seeds: Sequence[int],
        gates: Mapping[str, Gates],
        names: Sequence[str],
        what: str,
    ) -> dict[tuple[str, int], dict[str, Tensor]]:
        """The largest p over the tokens, one number for each picture and step, by prompt and concept, at each point.

        `wanted` says for each prompt which concepts (rows of the gates, of digests `names`) it is a boundary of; a
        prompt runs once for all of them, with these seeds.
        """
        pairs = [(prompt, concept) for prompt, concepts in wanted.items() for concept in concepts]
        content = {prompt: self._content(prompt, seeds) for prompt in wanted}
        kept = {pair: self.archive.peaks(pair[0], content[pair[0]], names[pair[1]]) for pair in pairs}
        found = {pair: points for pair, points in kept.items() if points is not None}
        missing = [prompt for prompt, concepts in wanted.items() if any((prompt, one) not in found for one in concepts)]
        highest: dict[str, dict[str, list[Tensor]]] = {prompt: {} for prompt in missing}

        def hear(batch: Rows) -> Listener:
            def listen(point: efface.HookPoint, features: Tensor, _: efface.Call) -> None:
                exact = features.to(torch.promote_types(features.dtype, torch.float32))
                peaks = gates[point.name](exact).amax(1).cpu()
                for prompt, rows in batch.items():
                    highest[prompt].setdefault(point.name, []).append(peaks[rows])

            return listen

        for prompt in self._collected(missing, seeds, hear, what):
            points = highest.pop(prompt)
            for concept in wanted[prompt]:
                own = {name: torch.cat([each[:, concept] for each in all_]) for name, all_ in points.items()}
                self.archive.keep_peaks(prompt, content[prompt], names[concept], own)
                found[prompt, concept] = own
        return found

    def _collected(
        self, prompts: Sequence[str], seeds: Sequence[int], hear: Callable[[Rows], Listener], what: str
    ) -> Iterator[str]:
        """Every prompt with every seed, and the prompt when its last seed is done.

        The noise of a seed does not depend on what else is in the batch.
        """
        pairs = [(prompt, seed) for prompt in prompts for seed in seeds]
        batches = [pairs[first : first + self.batch] for first in range(0, len(pairs), self.batch)]
        total, done = len(batches) * self.sampling.calls(self.model.pipe), 0
        for batch in batches:
            for _ in self._denoised(batch, hear(_rows(batch))):
                done += 1
                self.run.progress(done, total, what)
            yield from (prompt for prompt, seed in batch if seed == seeds[-1])

    def _denoised(self, batch: Sequence[tuple[str, int]], listener: Listener) -> Iterator[None]:
        encoded = self.model.encode([prompt for prompt, _ in batch])
        noise = self.model.noise([seed for _, seed in batch], self.sampling.height, self.sampling.width)
        generators = [efface.Run(seed).generator(stream="gloce") for _, seed in batch]
        return trajectories(
            self.model,
            encoded,
            negative(self.model, len(batch)),
            noise,
            self.sampling,
            self.places,
            listener,
            generators,
        )

    def _content(self, prompt: str, seeds: Sequence[int]) -> str:
        """What tells a prompt's entries in the archive apart: its embedding, and the seeds of its pictures."""
        if self.archive.folder is None:
            return ""
        encoded = self.model.encode([prompt])
        return f"{digest(encoded.hidden, encoded.pooled)} {list(seeds)}"


def _rows(batch: Sequence[tuple[str, int]]) -> dict[str, slice]:
    """The rows of each prompt in a batch, which lie together."""
    prompts = [prompt for prompt, _ in batch]
    return {prompt: slice(prompts.index(prompt), prompts.index(prompt) + prompts.count(prompt)) for prompt in prompts}


def negative(model: efface.Model, count: int) -> efface.Encoded:
    """The empty prompt as the pipeline itself would put it in: encoded, or zeros where it is configured so (SDXL)."""
    empty = model.encode([""] * count)
    if empty.pooled is None or not model.pipe.config.get("force_zeros_for_empty_prompt"):
        return empty
    return replace(empty, hidden=torch.zeros_like(empty.hidden), pooled=torch.zeros_like(empty.pooled))
