"""Erasures as a LoRA file that needs no efface."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import safetensors.torch
import torch
from torch import Tensor, nn

from efface.errors import EffaceError, unknown
from efface.export.factors import factors
from efface.export.names import diffusers_name, kohya_name
from efface.writing import write
from efface_hooks import BadEdit, LowRank
from efface_hooks.plan import Place
from efface_hooks.point import TEXT_ENCODERS

if TYPE_CHECKING:
    from efface.editor import Editor

Format = Literal["diffusers-lora", "kohya-lora"]
FORMATS: tuple[Format, ...] = ("diffusers-lora", "kohya-lora")
DTYPES = ("float32", "float16", "bfloat16")

Factors = Mapping[str, tuple[Place, LowRank]]


@dataclass(frozen=True)
class Lora:
    """A LoRA: tensors under the names of its format, the rank of every layer, and text for the file's head."""

    tensors: Mapping[str, Tensor]
    ranks: Mapping[str, int]
    metadata: Mapping[str, str]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file in one step; CannotSave names path and reason, and what was there still is."""
        write(path, safetensors.torch.save(dict(self.tensors), metadata=dict(self.metadata)))


def lora(editor: Editor, to: Format, dtype: str = "float32") -> Lora:
    """What the editor's erasures that act change in the weights, as one LoRA with alpha equal to rank.

    Exact but for the rounding to `dtype`: W' - W has no more rank than the edits have columns. Raises BadEdit, which
    names every erasure that no weights can hold, and EffaceError where there is nothing to export.
    """
    if to not in FORMATS:
        raise EffaceError(unknown("format", to, FORMATS, "there are"))
    if dtype not in DTYPES:
        raise EffaceError(unknown("dtype", dtype, DTYPES, "there are"))
    if obstacles := editor.obstacles():
        raise BadEdit("Cannot export: " + "; ".join(f"{label}: {why}" for label, why in obstacles.items()))
    found = factors(editor.pipe, editor.patches)
    if not found:
        raise EffaceError("There is no erasure that acts: nothing to export")
    made = {name: (place, _cast(change, dtype)) for name, (place, change) in found.items()}
    written = _kohya(editor.pipe, made) if to == "kohya-lora" else _diffusers(made)
    ranks = {name: change.rank for name, (_, change) in made.items()}
    return Lora(written, ranks, _metadata(editor, to, ranks))


def _diffusers(made: Factors) -> dict[str, Tensor]:
    tensors = {}
    for place, change in made.values():
        down, up, _ = diffusers_name(place)
        tensors[down], tensors[up] = _shaped(place.module, change)
    return tensors


def _kohya(pipe: Any, made: Factors) -> dict[str, Tensor]:
    tensors = {}
    for place, change in (*_evened(made), *_fillers(pipe, made)):
        down, up, alpha = kohya_name(pipe, place)
        tensors[down], tensors[up] = _shaped(place.module, change)
        tensors[alpha] = torch.tensor(float(change.rank))
    return tensors


def _shaped(module: nn.Module, change: LowRank) -> tuple[Tensor, Tensor]:
    """`down` and `up` as a LoRA of this layer has them; a convolution's are kernels."""
    up, down = change.up.contiguous(), change.down.contiguous()
    if not isinstance(module, nn.Conv2d):
        return down, up
    return down.view(change.rank, module.in_channels, *module.kernel_size), up[..., None, None]


def _evened(made: Factors) -> list[tuple[Place, LowRank]]:
    """One rank for all layers of a model, filled up with zeros: diffusers 0.42 mixes up alphas that differ."""
    return [(place, _padded(change, _most(made, place.component))) for place, change in made.values()]


def _most(made: Factors, part: str) -> int:
    return max((change.rank for place, change in made.values() if place.component == part), default=0)


def _padded(change: LowRank, rank: int) -> LowRank:
    more = rank - change.rank
    return LowRank(nn.functional.pad(change.up, (0, more)), nn.functional.pad(change.down, (0, 0, 0, more)))


def _fillers(pipe: Any, made: Factors) -> list[tuple[Place, LowRank]]:
    """A change of nothing at an `out_proj`: without one diffusers 0.42 drops the file's other projections there."""
    fillers = []
    for part in TEXT_ENCODERS:
        paths = [place.path for place, _ in made.values() if place.component == part]
        if any("self_attn" in path for path in paths) and not any("out_proj" in path for path in paths):
            path = next(path for path in paths if "self_attn" in path).rpartition(".")[0] + ".out_proj"
            module = getattr(pipe, part).get_submodule(path)
            like, rank = next(iter(made.values()))[1].up, _most(made, part)
            nothing = LowRank(like.new_zeros(module.out_features, rank), like.new_zeros(rank, module.in_features))
            fillers.append((Place(f"{part}.{path}", part, path, module), nothing))
    return fillers


def _cast(change: LowRank, dtype: str) -> LowRank:
    wanted: torch.dtype = getattr(torch, dtype)
    return LowRank(change.up.to(wanted), change.down.to(wanted))


def _metadata(editor: Editor, to: Format, ranks: Mapping[str, int]) -> dict[str, str]:
    """What the file says of itself: the erasures in it by digest, and the words that kohya's programs look for."""
    acting = [entry.erasure.digest for entry in editor.entries if entry.acts]
    said = {"format": "pt", "efface.erasures": " ".join(acting)}
    if to == "diffusers-lora":
        return said
    common = str(Counter(ranks.values()).most_common(1)[0][0])
    return said | {"ss_network_module": "networks.lora", "ss_network_dim": common, "ss_network_alpha": common}
