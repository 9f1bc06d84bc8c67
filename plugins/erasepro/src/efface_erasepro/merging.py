"""Gated fits as one: phrases and their columns side by side, each with the invariants that it was fitted beside.

Derived: the duals of a column depend on all that its fit kept, so the invariants of one fit do not serve another's
phrases to the same bits. Every fit is a part with invariants of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

import efface
from efface.solver import Columns
from efface_erasepro.mass import NEVER, NONE, alone, parts_of

COLUMNS = ("targets", "change", "duals")
PHRASES = ("signatures", "similar")


def merged(fits: Sequence[efface.Fitted], request: efface.Request) -> efface.Fit:
    """The phrases of a request, which are in these gated fits: tensors as `mass.fit` makes them, of more parts."""
    shares: list[dict[str, Tensor]] = []
    for fitted in fits:
        shares.append(_share(fitted, _left(fitted, request), shares))
    tensors = _joined(shares)
    columns = Columns(tensors["targets"], tensors["change"])
    return efface.Fit(
        tensors,
        facts=fits[0].fit.facts,
        report={
            "phrases": len(tensors["words"]),
            "columns": len(columns),
            "residual": alone(columns, tensors),
            "softened": {label: price for fitted in fits for label, price in _softened(fitted, request)},
            "found by name only": int((tensors["similar"] == NEVER).sum()),
        },
    )


def _left(fitted: efface.Fitted, request: efface.Request) -> Tensor:
    """Which phrases of a fit are of the request's concepts, (P,)."""
    wanted = set(request.concepts)
    return torch.tensor([concept in wanted for concept in fitted.request.concepts for _ in concept.phrases])


def _share(fitted: efface.Fitted, left: Tensor, before: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """What a fit has of some phrases, numbered on from those of the shares before it, and so its parts."""
    tensors = fitted.fit.tensors
    owners, parts = tensors["owners"], parts_of(tensors)
    known, place = torch.unique(parts[left], return_inverse=True)
    first_phrase = sum(len(share["parts"]) for share in before)
    first_part = int(before[-1]["parts"].amax()) + 1 if before else 0
    numbers = left.cumsum(0) - 1 + first_phrase
    of_phrase, phrase, part = owners > NONE, owners.clamp_min(0), (NONE - owners).clamp_min(0)
    stays = torch.where(of_phrase, left[phrase], torch.isin(part, known))
    named = torch.where(of_phrase, numbers[phrase], NONE - torch.searchsorted(known, part) - first_part)
    return (
        {name: tensors[name][:, stays] for name in COLUMNS}
        | {name: tensors[name][left] for name in PHRASES}
        | {"owners": named[stays], "parts": place + first_part, "words": tensors["words"][left]}
    )


def _joined(shares: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of all shares; of a single part as its fit had them."""
    words = [ids[ids != NONE] for share in shares for ids in share["words"]]
    found = {name: torch.cat([share[name] for share in shares], 1) for name in COLUMNS}
    found |= {name: torch.cat([share[name] for share in shares]) for name in ("owners", *PHRASES)}
    found |= {"words": pad_sequence(words, batch_first=True, padding_value=NONE)}
    parts = torch.cat([share["parts"] for share in shares])
    return found | ({"parts": parts} if bool(parts.any()) else {})


def _softened(fitted: efface.Fitted, request: efface.Request) -> list[tuple[str, Any]]:
    """Columns of the request's phrases that a fit did not meet, by their labels, and what each would have cost."""
    wanted = set(request.concepts)
    phrases = [phrase for concept in fitted.request.concepts if concept in wanted for phrase in concept.phrases]
    named = {*phrases, *(prompt for phrase in phrases for prompt in fitted.request.prompts(phrase))}
    return [
        (label, price) for label, price in fitted.fit.report["softened"].items() if label.rpartition(" [")[0] in named
    ]
