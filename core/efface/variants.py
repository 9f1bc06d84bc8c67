"""Weights that were saved under the name of a variant, such as diffusion_pytorch_model.fp16.safetensors."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from efface.errors import UnknownModel
from efface.index import Index
from efface_hooks.errors import listed

# Shards are numbered after the variant, in older files before it.
WEIGHTS = re.compile(
    r"(diffusion_pytorch_model|pytorch_model|model)(\.(?P<new>\w+?))?(-\d+-of-\d+)?(\.(?P<old>\w+))?"
    r"\.(?P<kind>safetensors|bin)"
)


def chosen(index: Index, files: Iterable[str]) -> str | None:
    """The variant to load of a pipeline with these files (`unet/model.safetensors`).

    None where every part has plain weights; else the one that all parts without them have. UnknownModel where there is
    no such variant, or more than one.
    """
    found: dict[str, set[str]] = {}
    for file in files:
        part, _, name = file.rpartition("/")
        if part in index.present and (variant := variant_of(name)) is not None:
            found.setdefault(part, set()).add(variant)
    lacking = {part: variants for part, variants in found.items() if "" not in variants}
    if not lacking:
        return None
    shared = set.intersection(*lacking.values())
    if len(shared) != 1:
        each = "; ".join(f"{part}: {listed(sorted(variants))}" for part, variants in sorted(lacking.items()))
        told = "several variants of its weights" if shared else "no variant of its weights that all parts have"
        raise UnknownModel(f"{index.where} has {told}, and no plain ones ({each}); leave one of them in the folder")
    return shared.pop()


def files_of(folder: Path) -> list[str]:
    """The files of a pipeline's parts, as `chosen` takes them."""
    return [file.relative_to(folder).as_posix() for file in folder.glob("*/*")]


def variant_of(name: str) -> str | None:
    """The variant that a file of weights is of, "" for plain ones; None for a file that is something else."""
    found = WEIGHTS.fullmatch(name)
    return None if found is None else found["new"] or found["old"] or ""


def weights_of(part: Path, variant: str | None) -> list[Path]:
    """The files with a part's weights that are loaded: those of the variant if it has some, else the plain ones."""
    files = [file for file in sorted(part.iterdir()) if variant_of(file.name) is not None]
    own = [file for file in files if variant is not None and variant_of(file.name) == variant]
    read = own or [file for file in files if variant_of(file.name) == ""]
    return [file for file in read if file.suffix == ".safetensors"] or read
