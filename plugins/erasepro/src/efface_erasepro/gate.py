"""The edit at `unet.text` that acts on prompts with targets in them, and on no others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.nn.utils.rnn import pad_sequence

import efface
from efface.solver import Columns, through_duals
from efface_erasepro.mass import NONE, columns_of

POINT = "unet.text"
REMEDY = "Generate from prompts, or fit with similarity at most 1."


@dataclass(frozen=True, eq=False)
class Moves:
    """Maps for one prompt tensor: row b of x gains x down_b^T up_b^T, rows without a target stay as they are.

    `rows` (B, 1, 1) bool, `up` (B, d, k), `down` (B, k, d) on the device of x.
    """

    rows: Tensor
    up: Tensor
    down: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            wide = x.to(self.up.dtype)
            moved = wide + wide @ self.down.mT @ self.up.mT
        return torch.where(self.rows, moved.to(x.dtype), x)


class Gate:
    """Finds the targets of each prompt and solves for them alone, once per prompt.

    A call of the U-Net then costs two small products, whatever the number of concepts. Tensors as `mass.fit` makes
    them, on the CPU.
    """

    def __init__(self, tensors: Mapping[str, Tensor], similarity: float) -> None:
        self._tensors = tensors
        self._similarity = similarity
        self._phrases: dict[tuple[int, ...], list[int]] = {}
        for index, ids in enumerate(tensors["words"].tolist()):
            self._phrases.setdefault(tuple(one for one in ids if one != NONE), []).append(index)
        self._lengths = {len(words) for words in self._phrases}

    def __call__(self, x: Tensor, call: efface.Call) -> Tensor:
        moves: Moves | None = call.per_prompt(self.moves)
        return x if moves is None else moves(x)

    def moves(self, call: efface.Call) -> Moves | None:
        """The maps for the prompts of a call; None where no prompt has a target in it."""
        text, ids = call.text, call.ids
        hidden = text.detach().to("cpu", torch.float32)
        rows = [None] * len(hidden) if ids is None else ids.tolist()
        active = [self.active(one, row) for one, row in zip(hidden, rows, strict=True)]
        if not any(active):
            return None
        maps = [self._map(found) for found in active]
        dtype = torch.promote_types(text.dtype, torch.float32)
        return Moves(
            torch.tensor([bool(found) for found in active], device=text.device)[:, None, None],
            pad_sequence([one.up.T for one in maps], batch_first=True).mT.to(text.device, dtype),
            pad_sequence([one.down for one in maps], batch_first=True).to(text.device, dtype),
        )

    def active(self, hidden: Tensor, ids: list[int] | None) -> set[int]:
        """The phrases that a prompt names by its token ids, or that one of its tokens (T, d) resembles.

        Without ids resemblance alone decides, also for phrases that other words resemble: rather too many than too few.
        """
        if ids is None and self._similarity > 1:
            raise efface.BypassedError(POINT, "the words of these prompt embeddings are not known", REMEDY)
        least = torch.full_like(self._tensors["similar"], self._similarity) if ids is None else self._tensors["similar"]
        nearest = (normalize(hidden, dim=1) @ self._tensors["signatures"].T).amax(0)
        return {*(nearest >= least).nonzero().flatten().tolist(), *self._named(ids or [])}

    def _named(self, ids: list[int]) -> Iterable[int]:
        for length in self._lengths:
            for first in range(len(ids) - length + 1):
                yield from self._phrases.get(tuple(ids[first : first + length]), ())

    def _map(self, active: set[int]) -> efface.LowRank:
        """The exact map of the active phrases' columns and their invariants; nothing where none is active."""
        targets = self._tensors["targets"]
        if not active:
            return efface.LowRank(targets.new_zeros(len(targets), 0), targets.new_zeros(0, len(targets)))
        chosen = columns_of(self._tensors, active)
        columns = Columns(targets[:, chosen], self._tensors["change"][:, chosen])
        return through_duals(columns, self._tensors["duals"][:, chosen])
