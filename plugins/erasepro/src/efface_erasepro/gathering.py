"""Features of a thousand concepts' prompts, read a few prompts at a time: they fit into memory and can be resumed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

import efface
from efface.fingerprint import fingerprint
from efface.solver import Columns
from efface_erasepro.batch import Batch, Cells
from efface_erasepro.demand import Demand
from efface_erasepro.reading import embedded

TOGETHER = 64  # prompts in one pass of the text encoder
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

    def of(self, hidden: Tensor, first: int) -> Tensor:
        """What the prompts first .. first + B - 1 with hidden states (B, T, d) add to the columns, (columns, d)."""
        tokens, length = self.tokens, hidden.shape[1]
        here = (tokens.rows >= first) & (tokens.rows < first + len(hidden))
        places = torch.stack([self.groups[here], (tokens.rows[here] - first) * length + tokens.positions[here]])
        size = (self.columns, len(hidden) * length)
        shares = torch.sparse_coo_tensor(places, tokens.weights[here], size, check_invariants=True)
        added: Tensor = torch.sparse.mm(shares, hidden.flatten(0, 1).to("cpu", torch.float64))
        return added


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
    reading = Reading(model, prompts, Wanted.joined(parts), len(subjects), clip_skip, run)
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
    """One pass over the prompts; the first `subjects` columns are complete before the first anchor is read."""

    def __init__(
        self, model: efface.Model, prompts: Batch, wanted: Wanted, subjects: int, clip_skip: int | None, run: efface.Run
    ) -> None:
        self.model, self.prompts, self.wanted, self.clip_skip, self.run = model, prompts, wanted, clip_skip, run
        self.subjects = subjects
        self.others = _unique(prompts.anchors, prompts.kept, prompts.still)
        self.dtype = embedded(model, prompts.prompts[-1:], clip_skip, 1).hidden.dtype

    def finished(self) -> tuple[Tensor, Tensor]:
        """The columns (columns, d), and each subject's largest cosine with any other token, (subjects,)."""
        checkpoint = self._checkpoint()
        state = checkpoint.load()
        sums, nearest, done = torch.zeros(0), torch.full((self.subjects,), -1.0), 0
        if state is not None:
            sums, nearest, done = state.tensors["sums"], state.tensors["nearest"], int(state.facts)
        for turn, (first, hidden) in enumerate(self._passes(done)):
            added = self.wanted.of(hidden, first)
            sums = added if first == 0 else sums + added
            nearest = torch.maximum(nearest, self._nearest(sums, hidden, first))
            if turn % SAVED == SAVED - 1:
                checkpoint.save({"sums": sums, "nearest": nearest}, first + len(hidden))
        return sums, nearest

    def _passes(self, done: int) -> Iterator[tuple[int, Tensor]]:
        """The number of the first prompt of each pass from `done` on, and hidden states (B, T, d)."""
        prompts = self.prompts.prompts
        for first in range(done, len(prompts), TOGETHER):
            self.run.progress(first, len(prompts), "encoding prompts")
            yield first, embedded(self.model, prompts[first : first + TOGETHER], self.clip_skip, TOGETHER).hidden
        self.run.progress(len(prompts), len(prompts), "encoding prompts")

    def _nearest(self, sums: Tensor, hidden: Tensor, first: int) -> Tensor:
        """The largest cosine of each subject with the tokens of these prompts that are no target's, (subjects,)."""
        rows, positions = self.others
        here = (rows >= first) & (rows < first + len(hidden))
        if not here.any():
            return torch.full((self.subjects,), -1.0)
        tokens = hidden.to("cpu")[rows[here] - first, positions[here]]
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
