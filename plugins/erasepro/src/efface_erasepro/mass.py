"""Gated erasure of hundreds of concepts: all that does not depend on the prompt, computed once.

Reconstruction: the paper does not treat many concepts at once. One static map cannot (derived): features have fewer
dimensions than a thousand concepts ask for, so that either residuals are left or everything else is ruined.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

import efface
from efface.solver import Columns, Metric, Problem, duals, prices, residual, solve, through_duals
from efface_erasepro.batch import Batch, Cells, Choice, batch
from efface_erasepro.demand import Demand, Terms
from efface_erasepro.gathering import Gathered, gather
from efface_erasepro.outcome import softened
from efface_erasepro.reading import tokenized

NONE = -1  # no token id; the owner of the invariants of the first part, -2 of those of the second, and so on
NEVER = 2.0  # a cosine that no token reaches


@dataclass(frozen=True)
class Search:
    """How targets are looked for: the cosine from which a token is a target's last word, and the clip-skip."""

    similarity: float
    clip_skip: int | None


def fit(
    model: efface.Model,
    request: efface.Request,
    choice: Choice,
    terms: Terms,
    keep_weight: float,
    search: Search,
    run: efface.Run,
) -> efface.Fit:
    """P target phrases with N columns: of each phrase what it is found by, of each column what it is met by.

    Met by: `targets`, their `change` and `duals`, (d, N) each, and `owners` (N,) among the phrases, -1 for invariants,
    which hold wherever a phrase is met.
    Found by: token ids `words` (P, L), -1 behind the last, and the feature of the last word, `signatures` (P, d), with
    the cosine from which a token is that word, `similar` (P,).
    """
    prompts = batch(model, request, request.templates, choice).once
    found = gather(model, prompts, _subjects(model, request), keep_weight, search.clip_skip, run)
    demand = found.demand
    owners = _owners(prompts, len(request.templates))
    strict = demand.strict(terms.ridge)
    metric = Metric.of(strict)
    met, price = _met(demand, strict, metric, owners, terms)
    hard = Columns.joined([demand.still, demand.wishes.part(met)])
    nobody = torch.full((len(demand.still),), NONE)
    tensors = {
        "targets": hard.inputs.float(),
        "change": hard.change.float(),
        "duals": duals(replace(strict, hard=hard), metric).float(),
        "owners": torch.cat([nobody, owners[met]]),
    }
    finders = _finders(model, request, found, search.similarity)
    return efface.Fit(
        tensors | finders,
        facts={"similarity": search.similarity},
        report={
            "phrases": len(finders["words"]),
            "columns": len(hard),
            "residual": alone(hard, tensors | finders),
            "softened": softened(demand.erased, met, price),
            "found by name only": int((finders["similar"] == NEVER).sum()),
        },
    )


def _met(demand: Demand, strict: Problem, metric: Metric, owners: Tensor, terms: Terms) -> tuple[Tensor, Tensor]:
    """Which columns can be met together with the others of their phrase and the invariants, and all prices, (n,)."""
    met, price = torch.zeros(len(owners), dtype=torch.bool), torch.zeros(len(owners), dtype=torch.float64)
    wishes = demand.wishes
    for owner in sorted(set(owners.tolist())):
        mine = owners == owner
        problem = replace(strict, hard=Columns.joined([demand.still, wishes.part(mine)]))
        if terms.refuse:
            solve(problem, "raise")
        found = prices(problem, terms.budget, metric)
        met[mine], price[mine] = found.met[len(demand.still) :], found.price[len(demand.still) :]
    return met, price


def _owners(prompts: Batch, templates: int) -> Tensor:
    """The phrase that each column stands for, (n,)."""
    owners = torch.empty(len(prompts.column_labels), dtype=torch.int64)
    owners[prompts.columns] = torch.div(prompts.targets.rows, templates, rounding_mode="floor")
    return owners


def _subjects(model: efface.Model, request: efface.Request) -> Cells:
    """The last word of each phrase in its prompt of the first template."""
    phrases = _phrases(request)
    subject = tokenized(model, phrases, request.templates[:1]).subject
    return Cells(len(request.templates) * torch.arange(len(phrases)), subject, torch.ones(len(phrases)))


def _finders(model: efface.Model, request: efface.Request, found: Gathered, similarity: float) -> dict[str, Tensor]:
    """Token ids and last word's feature of each phrase; no cosine where other words' tokens reach it."""
    plain = tokenized(model, _phrases(request), ["{}"])
    words = [ids[start:stop] for ids, start, stop in zip(plain.ids, plain.start, plain.stop, strict=True)]
    return {
        "words": pad_sequence(words, batch_first=True, padding_value=NONE),
        "signatures": found.signatures,
        "similar": torch.where(found.nearest < similarity, similarity, NEVER),
    }


def _phrases(request: efface.Request) -> list[str]:
    return [phrase for concept in request.concepts for phrase in concept.phrases]


def parts_of(tensors: Mapping[str, Tensor]) -> Tensor:
    """The part that each phrase is of, (P,): the fit that it came from, where several were merged."""
    return tensors["parts"] if "parts" in tensors else torch.zeros(len(tensors["words"]), dtype=torch.int64)


def columns_of(tensors: Mapping[str, Tensor], phrases: Iterable[int]) -> Tensor:
    """Which columns, (N,), make these phrases' map: their own and the invariants, of several parts the first one's.

    The same tokens are invariants of every part, read in other batches. Derived: demanding that what rounding makes of
    one token stays, twice, would demand it of the rounding too, at the price of a much larger map.
    """
    own = torch.tensor(list(phrases))
    first = parts_of(tensors)[own].amin()
    return torch.isin(tensors["owners"], torch.cat([own, (NONE - first)[None]]))


def alone(hard: Columns, tensors: Mapping[str, Tensor]) -> float:
    """The largest residual of a phrase where it is the only active one, by the tensors as they are stored."""
    worst = 0.0
    for owner in sorted(set(tensors["owners"].clamp_min(NONE).tolist()) - {NONE}):
        mine = columns_of(tensors, [owner])
        columns = hard.part(mine)
        worst = max(worst, float(residual(through_duals(columns, tensors["duals"][:, mine]), columns).max()))
    return worst
