"""Features of a thousand concepts' prompts, read a few prompts at a time: they fit into memory and can be resumed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

import efface
from efface.fingerprint import fingerprint
from efface.solver import Columns
from efface_erasepro.batch import Batch, Cells
from efface_erasepro.demand import Demand
from efface_erasepro.reading import TOGETHER, embedded

SAVED = 8  # passes after which the features so far are kept


@dataclass(frozen=True)
class Wanted:
    """What is read: mean features of `columns` groups of tokens, each token (n,) with its group and its share of it."""

    tokens: Cells
    groups: Tensor
    columns: int

    @classmethod
    def each(cls, cells: Cells) -> Wanted:
        """Every token by itself."""
        alone = Cells(cells.rows, cells.positions, torch.ones(len(cells), dtype=torch.float64))
        return cls(alone, torch.arange(len(cells)), len(cells))

    @classmethod
    def means(cls, cells: Cells, groups: Tensor, masses: Tensor) -> Wanted:
        """Weighted means over groups whose weights sum to `masses` (N,)."""
        shares = Cells(cells.rows, cells.positions, cells.weights / masses[groups])
        return cls(shares, groups, len(masses))

    @classmethod
    def joined(cls, parts: Mapping[str, Wanted]) -> Wanted:
        firsts = torch.tensor([0, *(part.columns for part in parts.values())]).cumsum(0)
        tokens = [part.tokens for part in parts.values()]
        return cls(
            Cells(*(torch.cat([getattr(one, name) for one in tokens]) for name in ("rows", "positions", "weights"))),
            torch.cat([part.groups + first for part, first in zip(parts.values(), firsts, strict=False)]),
            int(firsts[-1]),
        )

    def of(self, hidden: Tensor, first: int) -> tuple[Tensor, Tensor]:
        """Which columns the prompts first .. first + B - 1 have a part in, (n,), and what their hidden states
        (B, T, d) add to them, (n, d)."""
        tokens, length = self.tokens, hidden.shape[1]
        here = (tokens.rows >= first) & (tokens.rows < first + len(hidden))
        columns, turns = torch.unique(self.groups[here], return_inverse=True)
        places = torch.stack([turns, (tokens.rows[here] - first) * length + tokens.positions[here]])
        size = (len(columns), len(hidden) * length)
        shares = torch.sparse_coo_tensor(places, tokens.weights[here], size, check_invariants=True)
        return columns, torch.sparse.mm(shares, hidden.flatten(0, 1).to("cpu", torch.float64))


@dataclass(frozen=True)
class Gathered:
    """A demand; of each phrase the unit feature of its last word, (P, d), and its largest cosine with others, (P,)."""

    demand: Demand
    signatures: Tensor
    nearest: Tensor


def gather(
    model: efface.Model, prompts: Batch, subjects: Cells, keep_weight: float, clip_skip: int | None, run: efface.Run
) -> Gathered:
    """The demand of a batch that is passed `once`, and the features of subjects, tokens of its first prompts.

    With a checkpoint folder what was read is kept there every few passes, and an interrupted run goes on from it.
    """
    masses = torch.zeros(len(prompts.column_labels), dtype=torch.float64)
    masses.index_add_(0, prompts.columns, prompts.targets.weights)
    parts = {
        "subjects": Wanted.each(subjects),
        "targets": Wanted.means(prompts.targets, prompts.columns, masses),
        "anchors": Wanted.means(prompts.anchors, prompts.columns, masses),
        "kept": Wanted.each(prompts.kept),
        "still": Wanted.each(prompts.still),
    }
    reading = Reading(model, prompts, Wanted.joined(parts), subjects, clip_skip, run)
    sums, nearest = reading.finished()
    sizes = [part.columns for part in parts.values()]
    found = {name: part.T for name, part in zip(parts, torch.split(sums, sizes), strict=True)}
    erased = Columns.pairs(found["targets"], found["anchors"], masses, prompts.column_labels)
    demand = Demand(
        tokens=erased,
        erased=erased,
        kept=Columns.still(found["kept"], keep_weight * prompts.kept.weights) if keep_weight and sizes[3] else None,
        still=Columns.still(found["still"], labels=prompts.still_labels),
        still_base=found["still"],
        rtol=Demand.noise(reading.dtype),
    )
    return Gathered(demand, normalize(found["subjects"].T.float()), nearest)


class Reading:
    """One pass over the prompts; the first `subjects` columns are complete before the first anchor is judged.

    Passes are shared out between the processes of the run: the same ones however many there are.
    """

    def __init__(
        self,
        model: efface.Model,
        prompts: Batch,
        wanted: Wanted,
        subjects: Cells,
        clip_skip: int | None,
        run: efface.Run,
    ) -> None:
        self.model, self.prompts, self.wanted, self.clip_skip, self.run = model, prompts, wanted, clip_skip, run
        self.subjects = len(subjects)
        self.last_subject = int(subjects.rows.max())
        self.others = _unique(prompts.anchors, prompts.kept, prompts.still)
        probe = embedded(model, prompts.prompts[-1:], clip_skip, 1).hidden
        self.dtype, self.width = probe.dtype, probe.shape[2]

    def finished(self) -> tuple[Tensor, Tensor]:
        """The columns (columns, d), and each subject's largest cosine with any other token, (subjects,).

        The first process keeps what there is so far, and all go on from that.
        """
        checkpoint, total = self._checkpoint(), len(self.prompts.prompts)
        state = self.run.processes.first(checkpoint.load)
        sums = torch.zeros(self.wanted.columns, self.width, dtype=torch.float64)
        nearest, done = torch.full((self.subjects,), -1.0), 0
        if state is not None:
            sums, nearest, done = state.tensors["sums"], state.tensors["nearest"], int(state.facts)
        self.run.progress(done, total, "encoding prompts")
        for turn, found in enumerate(self._read(sums, range(done, total, TOGETHER)), 1):
            nearest = torch.maximum(nearest, found)
            done = min(done + TOGETHER, total)
            if turn % SAVED == 0 and self.run.processes.rank == 0:
                checkpoint.save({"sums": sums, "nearest": nearest}, done)
            self.run.progress(done, total, "encoding prompts")
        return sums, nearest

    def _read(self, sums: Tensor, passes: Sequence[int]) -> Iterator[Tensor]:
        """Add passes, told by their first prompts, to the sums; of each the nearest cosines, (subjects,).

        A pass that has subjects sends its other tokens, for cosines with them can be told once all subjects are known.
        """

        def judged(first: int) -> tuple[Tensor, Tensor, Tensor]:
            columns, added, tokens = self._pass(first)
            return columns, added, self._nearest(sums, tokens)

        early = [first for first in passes if first <= self.last_subject]
        for columns, added, tokens in self.run.processes.each(early, self._pass):
            sums[columns] += added
            yield self._nearest(sums, tokens)
        for columns, added, nearest in self.run.processes.each(passes[len(early) :], judged):
            sums[columns] += added
            yield nearest

    def _pass(self, first: int) -> tuple[Tensor, Tensor, Tensor]:
        """What a pass adds to which columns, and those of its tokens (n, d) that are no target's."""
        prompts = self.prompts.prompts[first : first + TOGETHER]
        hidden = embedded(self.model, prompts, self.clip_skip).hidden
        rows, positions = self.others
        here = (rows >= first) & (rows < first + len(hidden))
        return *self.wanted.of(hidden, first), hidden.to("cpu")[rows[here] - first, positions[here]]

    def _nearest(self, sums: Tensor, tokens: Tensor) -> Tensor:
        """The largest cosine of each subject with any of the tokens (n, d), (subjects,); -1 without tokens."""
        if not len(tokens):
            return torch.full((self.subjects,), -1.0)
        return (normalize(sums[: self.subjects].float()) @ normalize(tokens.float()).T).amax(1)

    def _checkpoint(self) -> efface.Checkpoint:
        if self.run.folder is None:
            return self.run.checkpoint("erasepro")
        base = fingerprint(self.model.pipe, self.model.points("text"))
        tokens = self.wanted.tokens
        wanted = [self.wanted.groups, tokens.rows, tokens.positions, tokens.weights, *self.others]
        return self.run.checkpoint("erasepro", base, list(self.prompts.prompts), wanted, self.clip_skip)


def _unique(*parts: Cells) -> tuple[Tensor, Tensor]:
    """Rows and positions of all tokens, each once."""
    places = torch.unique(torch.cat([torch.stack([part.rows, part.positions]) for part in parts], 1), dim=1)
    return places[0], places[1]
