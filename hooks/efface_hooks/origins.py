"""Where the embeddings that reach the U-Net come from: which text encoder pass, which token ids.

A pipeline casts, repeats and concatenates embeddings between text encoder and U-Net, so object identity is lost.
Rows are therefore recognised by a digest of their content, computed once for each prompt.
"""

from __future__ import annotations

import hashlib
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

KEPT_ROWS = 4096
KEPT_PROMPTS = 8


@dataclass(frozen=True)
class Origin:
    """One row of a text encoder's output: its token ids, the pass that made it, the edits it was made under."""

    ids: Tensor | None
    run: int
    edits: int


# SDXL's pipelines put zeros, made by no text encoder, where the negative prompt is empty.
ZEROED = Origin(ids=None, run=sys.maxsize, edits=-1)


@dataclass
class PromptCache:
    """What is known of one `encoder_hidden_states` tensor, found out on first use."""

    text: Tensor
    version: int
    sample: Tensor
    find: Callable[[Tensor], dict[str, list[Origin | None]]]
    values: dict[Any, Any] = field(default_factory=dict)

    @cached_property
    def rows(self) -> dict[str, list[Origin | None]]:
        """For each text encoder the origin of every row, None where it is not known."""
        return self.find(self.text)

    @cached_property
    def ids(self) -> Tensor | None:
        """(B, T); -1 throughout a row of zeros; None unless every other row is known."""
        first = next(iter(self.rows.values()), [])
        known = [row.ids for row in first if row is not None and row.ids is not None]
        if not known or any(row is None or (row.ids is None and row is not ZEROED) for row in first):
            return None
        blank = torch.full_like(known[0], -1)
        return torch.stack([blank if row is ZEROED else known.pop(0) for row in first]).to(self.text.device)

    @cached_property
    def conditional(self) -> Tensor | None:
        """Pipelines encode the prompt first and the negative prompt after it, then put the latter in front.

        They denoise the same latents in both halves; other latents mean prompts that were encoded one by one.
        """
        first = next(iter(self.rows.values()), [])
        if not first or any(row is None for row in first):
            return None
        runs = [row.run for row in first if row is not None]
        half = len(runs) // 2
        guided = len(runs) % 2 == 0 and len(set(runs)) > 1 and min(runs[:half]) > max(runs[half:])
        guided = guided and torch.equal(self.sample[:half], self.sample[half:])
        if not guided and len(set(runs)) > 1:
            return None
        flags = [False] * half + [True] * half if guided else [True] * len(runs)
        return torch.tensor(flags, device=self.text.device)


class Origins:
    """The embeddings that the text encoders of one pipeline made, newest last."""

    def __init__(self) -> None:
        self.edits = 0
        self._runs = 0
        self._rows: dict[str, OrderedDict[bytes, Origin]] = {}
        self._widths: dict[str, int] = {}
        self._prompts: OrderedDict[int, PromptCache] = OrderedDict()

    def record(
        self, component: str, ids: Tensor | None, output: Any, finish: Callable[[Tensor], Tensor], dtype: torch.dtype
    ) -> None:
        """Note every row of a text encoder's output, in its own dtype and in the U-Net's.

        `finish` is the encoder's last layer norm, which pipelines apply themselves to earlier hidden states
        when clip-skip is used.
        """
        self._runs += 1
        rows = self._rows.setdefault(component, OrderedDict())
        for states in _variants(output, finish):
            self._widths[component] = states.shape[-1]
            for cast in {states.dtype, dtype}:
                for index, key in enumerate(_digests(states.to(cast))):
                    row = None if ids is None else ids[index].detach().cpu()
                    rows[key] = Origin(row, self._runs, self.edits)
                    rows.move_to_end(key)
        while len(rows) > KEPT_ROWS:
            rows.popitem(last=False)

    def cache(self, text: Tensor, sample: Tensor) -> PromptCache:
        """What is known of a tensor; forgotten when the tensor is changed in place or others have come since."""
        kept = self._prompts.get(id(text))
        if kept is not None and kept.text is text and kept.version == _version(text):
            return kept
        fresh = PromptCache(text, _version(text), sample, self._find)
        self._prompts[id(text)] = fresh
        self._prompts.move_to_end(id(text))
        while len(self._prompts) > KEPT_PROMPTS:
            self._prompts.popitem(last=False)
        return fresh

    def edited(self) -> None:
        """Text encoder edits changed: embeddings made before now are no longer up to date."""
        self.edits += 1
        self._prompts.clear()

    def stale(self, prompt: PromptCache, component: str) -> bool:
        """Whether some row was not made by that text encoder under the present edits."""
        rows = prompt.rows.get(component)
        return rows is None or any(row is None or row.edits not in (self.edits, ZEROED.edits) for row in rows)

    def _find(self, text: Tensor) -> dict[str, list[Origin | None]]:
        found: dict[str, list[Origin | None]] = {}
        start = 0
        together = sum(self._widths.values()) == text.shape[-1]
        for component, width in sorted(self._widths.items()):
            if not together and width != text.shape[-1]:
                continue
            part = text[..., start : start + width] if together else text
            start += width
            kept = self._rows[component]
            blank = (part == 0).flatten(1).all(1).tolist()
            found[component] = [
                ZEROED if zero else kept.get(key) for key, zero in zip(_digests(part), blank, strict=True)
            ]
        return found


def _variants(output: Any, finish: Callable[[Tensor], Tensor]) -> Iterator[Tensor]:
    for value in output.values() if hasattr(output, "values") else output:
        if isinstance(value, Tensor) and value.ndim == 3:
            yield value
        elif isinstance(value, tuple):
            for states in value:
                if isinstance(states, Tensor) and states.ndim == 3:
                    yield states
                    yield finish(states)


def _digests(states: Tensor) -> list[bytes]:
    host = states.detach().cpu().contiguous()
    return [
        hashlib.blake2b(row.view(torch.uint8).numpy().tobytes(), digest_size=16, key=str(host.dtype).encode()).digest()
        for row in host
    ]


def _version(text: Tensor) -> int:
    return -1 if text.is_inference() else text._version
