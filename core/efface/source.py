"""Where a model is, and what is known of it before any of its weights is read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from efface.errors import UnknownModel, unknown
from efface.index import INDEX, NETWORKS, Index
from efface.registry import Registry
from efface.single_file import check_contents, checked_file
from efface.variants import chosen, files_of, variant_of

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclass(frozen=True)
class Source:
    """A folder, a single file or a hub id, which has been looked at as far as it takes no reading of weights.

    `config` goes with a single file. `variant` is the one whose weights are read where a part has no plain ones.
    """

    name: str
    place: Path | str
    config: Path | None = None
    variant: str | None = None

    @property
    def local(self) -> Path | None:
        """The folder or file on this machine; for a hub id the folder that a download has left."""
        return self.place if isinstance(self.place, Path) else cached(self.place)


def located(model: str | os.PathLike[str], config: str | os.PathLike[str] | None, registry: Registry) -> Source:
    """The source of a model by any of its names.

    UnknownModel lists the installed models and says what was looked for, or what a folder lacks; UnsupportedPipeline
    says what a pipeline lacks.
    """
    name, place = str(model), _place(model, registry)
    if isinstance(place, Path) and place.is_file():
        source = Source(name, place, None if config is None else Path(config))
        check_contents(place, source.config)
        return source
    if config is not None:
        raise UnknownModel(f"config goes with a single file; {place} brings its own")
    index = Index.read(place) if isinstance(place, Path) else _hub_index(place)
    index.check()
    if isinstance(place, Path):
        index.check_folders(place)
        _check_weights(place, index)
    files = files_of(place) if isinstance(place, Path) else _hub_files(place)
    return Source(name, place, None, chosen(index, files))


def cached(hub_id: str) -> Path | None:
    """The folder that a download from the hub has left on this machine, complete or not."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(hub_id, INDEX)
    return Path(found).parent if isinstance(found, str) else None


def _place(model: str | os.PathLike[str], registry: Registry) -> Path | str:
    path = Path(model)
    if path.is_dir():
        return path
    if path.is_file():
        return checked_file(path)
    name = str(model)
    models = registry.models()
    if name in models or ":" in name:
        return registry.model(name).path()
    if HUB_ID.fullmatch(name):
        return name
    raise UnknownModel(
        unknown("model", name, models) + " Give one of these, a local folder or file, or a hub id (owner/name)"
    )


def _check_weights(folder: Path, index: Index) -> None:
    held = {file.partition("/")[0] for file in files_of(folder) if variant_of(file.rpartition("/")[2]) is not None}
    for name in index.present:
        if name in NETWORKS and name not in held:
            raise UnknownModel(f"{index.where} has no weights in {name}/: no .safetensors file, and no .bin")


def _hub_index(hub_id: str) -> Index:
    """The index alone, from the hub or from what a download has left."""
    from huggingface_hub import hf_hub_download

    try:
        file = hf_hub_download(hub_id, INDEX)
    except Exception as error:  # no such model, no hub, no permission: each is said in another way
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UnknownModel(f"Cannot load {hub_id!r}: {said}") from error
    return Index.read(Path(file).parent, hub_id)


def _hub_files(hub_id: str) -> Iterable[str]:
    from huggingface_hub import HfApi

    try:
        return [file.rfilename for file in HfApi().model_info(hub_id).siblings or ()]
    except Exception:  # the hub is not there, which its client says in many ways; what is here has to do
        folder = cached(hub_id)
        return files_of(folder) if folder else ()
