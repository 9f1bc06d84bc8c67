"""Features of prompts on their way through the U-Net, reduced to statistics as they come."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

import efface
from efface_gloce.archive import Archive, digest
from efface_gloce.gate import Gates
from efface_gloce.moments import Moments, Running, grid_size, pyramid
from efface_gloce.sampling import Listener, Sampling, trajectories

Rows = Mapping[str, slice]
Pair = tuple[str, int]


@dataclass(frozen=True)
class Phase:
    """A part of a fit in which the U-Net is called `total` times, and how many of these calls come `before` a batch."""

    what: str
    total: int
    before: int = 0

    def after(self, calls: int) -> Phase:
        return replace(self, before=self.before + calls)


@dataclass(frozen=True)
class Batch:
    """Trajectories that run together, the prompt and the seed of each, and the prompts that are `missing`.

    The others run along: in another batch a trajectory has other digits in the end, and a fit that goes on after a
    break has to give what an undisturbed one gives.
    """

    pairs: Sequence[Pair]
    missing: Collection[str]
    phase: Phase

    @property
    def rows(self) -> Rows:
        """The rows of each missing prompt, which lie together."""
        prompts = [prompt for prompt, _ in self.pairs]
        return {
            one: slice(prompts.index(one), prompts.index(one) + prompts.count(one))
            for one in prompts
            if one in self.missing
        }

    def finished(self, last: int) -> list[str]:
        """The missing prompts that have their last seed here."""
        return [prompt for prompt, seed in self.pairs if seed == last and prompt in self.missing]


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

    def calls(self, pictures: int) -> int:
        """How often the U-Net is called for so many trajectories."""
        return -(-pictures // self.batch) * self.sampling.calls(self.model.pipe)

    def moments(self, prompts: Sequence[str], phase: Phase) -> Iterator[dict[str, Moments]]:
        """For each prompt in turn the moments of its features at each point.

        They are over seeds, steps and a pyramid of each grid. No more prompts are in the making than are in a batch.
        """
        known = {prompt: self._content(prompt, self.seeds) for prompt in prompts}
        missing = [prompt for prompt in prompts if not self.archive.has_moments(prompt, known[prompt])]
        task = ("moments", *known.values())
        collected = self._moments(self._batches(self.archive.begun(task, missing), missing, self.seeds, phase))
        for turn, prompt in enumerate(prompts, 1):
            found = next(collected) if prompt in missing else self.archive.moments(prompt, known[prompt])
            if turn == len(prompts):
                self.archive.ended(task)
            yield found

    def _moments(self, batches: Sequence[Batch]) -> Iterator[dict[str, Moments]]:
        running: dict[str, dict[str, Running]] = {prompt: {} for batch in batches for prompt in batch.rows}

        def hear(rows: Rows) -> Listener:
            def listen(point: efface.HookPoint, features: Tensor, call: efface.Call) -> None:
                high, wide = call.sample.shape[-2:]
                size = grid_size((high, wide), features.shape[1])
                for prompt, own in rows.items():
                    running[prompt].setdefault(point.name, Running()).add(pyramid(features[own], size))

            return listen

        for batch in batches:
            self._run(batch, hear(batch.rows))
            for prompt in batch.finished(self.seeds[-1]):
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
        prompt runs once for all of them, with these seeds. Batches are shared out between the processes of the run;
        the first one has the archive.
        """
        content = {prompt: self._content(prompt, seeds) for prompt in wanted}

        def kept() -> dict[tuple[str, int], dict[str, Tensor]]:
            pairs = [(prompt, concept) for prompt, concepts in wanted.items() for concept in concepts]
            read = {pair: self.archive.peaks(pair[0], content[pair[0]], names[pair[1]]) for pair in pairs}
            return {pair: points for pair, points in read.items() if points is not None}

        processes = self.run.processes
        found = processes.first(kept)
        missing = [prompt for prompt, concepts in wanted.items() if any((prompt, one) not in found for one in concepts)]
        task = ("peaks", what, *(f"{content[prompt]} {[names[one] for one in wanted[prompt]]}" for prompt in wanted))
        begun = processes.first(lambda: self.archive.begun(task, missing))
        batches = self._batches(begun, missing, seeds, Phase(what, 0))
        each = processes.each(batches, lambda batch: self._peaks(batch, wanted, gates))
        heard: dict[str, list[dict[str, Tensor]]] = {prompt: [] for prompt in missing}
        for batch, parts in zip(batches, each, strict=True):
            for prompt, points in parts.items():
                heard[prompt].append(points)
            for prompt in batch.finished(seeds[-1]):
                whole = _joined(heard.pop(prompt))
                for column, concept in enumerate(wanted[prompt]):
                    own = {name: peaks[:, column] for name, peaks in whole.items()}
                    if processes.rank == 0:
                        self.archive.keep_peaks(prompt, content[prompt], names[concept], own)
                    found[prompt, concept] = own
        if processes.rank == 0:
            self.archive.ended(task)
        return found

    def _peaks(
        self, batch: Batch, wanted: Mapping[str, Sequence[int]], gates: Mapping[str, Gates]
    ) -> dict[str, dict[str, Tensor]]:
        """Of each prompt in a batch the peaks at each point, (steps x pictures, concepts that want it)."""
        rows = batch.rows
        heard: dict[str, list[dict[str, Tensor]]] = {prompt: [] for prompt in rows}

        def listen(point: efface.HookPoint, features: Tensor, _: efface.Call) -> None:
            exact = features.to(torch.promote_types(features.dtype, torch.float32))
            peaks = gates[point.name](exact).amax(1).cpu()
            for prompt, own in rows.items():
                heard[prompt].append({point.name: peaks[own][:, list(wanted[prompt])]})

        self._run(batch, listen)
        return {prompt: _joined(parts) for prompt, parts in heard.items()}

    def _batches(
        self, begun: Sequence[str], missing: Collection[str], seeds: Sequence[int], phase: Phase
    ) -> list[Batch]:
        """The batches with a missing prompt, of those that had all to do that was to do when this was begun."""
        pairs = [(prompt, seed) for prompt in begun for seed in seeds]
        all_ = (pairs[first : first + self.batch] for first in range(0, len(pairs), self.batch))
        chosen = [batch for batch in all_ if any(prompt in missing for prompt, _ in batch)]
        whole = replace(phase, total=phase.total or self.calls(len(chosen) * self.batch))
        left = frozenset(missing)
        return [Batch(batch, left, whole.after(self.calls(turn * self.batch))) for turn, batch in enumerate(chosen)]

    def _run(self, batch: Batch, listener: Listener) -> None:
        phase = batch.phase
        for done, _ in enumerate(self._denoised(batch.pairs, listener), phase.before + 1):
            self.run.progress(done, phase.total, phase.what)

    def _denoised(self, batch: Sequence[Pair], listener: Listener) -> Iterator[None]:
        """The noise of a seed does not depend on what else is in the batch."""
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


def _joined(parts: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The rows that parts have at each point, one after another."""
    found: dict[str, list[Tensor]] = {}
    for part in parts:
        for name, rows in part.items():
            found.setdefault(name, []).append(rows)
    return {name: torch.cat(rows) for name, rows in found.items()}


def negative(model: efface.Model, count: int) -> efface.Encoded:
    """The empty prompt as the pipeline itself would put it in: encoded, or zeros where it is configured so (SDXL)."""
    empty = model.encode([""] * count)
    if empty.pooled is None or not model.pipe.config.get("force_zeros_for_empty_prompt"):
        return empty
    return replace(empty, hidden=torch.zeros_like(empty.hidden), pooled=torch.zeros_like(empty.pooled))
