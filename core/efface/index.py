"""What a diffusers pipeline says it is made of: its model_index.json."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from efface.errors import UnknownModel
from efface_hooks.errors import UnsupportedPipeline, listed

INDEX = "model_index.json"
EDITED = {"unet": "with a U-Net", "text_encoder": "with a U-Net that reads text"}
NEEDED = (*EDITED, "tokenizer", "scheduler", "vae")
NETWORKS = ("unet", "text_encoder", "text_encoder_2", "vae")
LIBRARIES = ("diffusers", "transformers")


@dataclass(frozen=True)
class Index:
    """The class of a pipeline, and its parts by name: each a library and a class in it, or None for one left out.

    `where` is what errors call the model.
    """

    where: str
    pipeline: str
    parts: Mapping[str, tuple[str, str] | None]

    @classmethod
    def read(cls, folder: Path, where: str | None = None) -> Index:
        """The index in a folder; UnknownModel where there is none that can be read."""
        if not (folder / INDEX).is_file():
            what = f"a folder without {INDEX}" if folder.is_dir() else "no folder"
            raise UnknownModel(f"{folder} is {what}: not a diffusers pipeline")
        try:
            data = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise UnknownModel(f"{folder / INDEX} is not JSON: {error}") from error
        return cls.of(where or str(folder), data)

    @classmethod
    def of(cls, where: str, data: object) -> Index:
        """The index with this content; UnknownModel where it names no pipeline."""
        if not isinstance(data, Mapping) or not isinstance(data.get("_class_name"), str):
            raise UnknownModel(f"{where}: its {INDEX} names no pipeline (a text under _class_name)")
        pairs = {name: value for name, value in data.items() if isinstance(value, list) and len(value) == 2}
        return cls(where, data["_class_name"], {name: _part(pair) for name, pair in pairs.items()})

    @property
    def present(self) -> list[str]:
        """The parts that are not left out."""
        return [name for name, part in self.parts.items() if part is not None]

    def check(self) -> None:
        """UnsupportedPipeline for one without what efface edits and needs, UnknownModel for classes that nobody has."""
        for name, kind in EDITED.items():
            if name not in self.parts:
                has = listed(self.present) or "nothing"
                raise UnsupportedPipeline(f"{self.pipeline} has {has}, no {name}: efface edits pipelines {kind}")
        for name in NEEDED:
            if self.parts.get(name, ()) is None:
                told = f"{self.where} is saved without its {name} ([null, null] in its {INDEX})"
                raise UnsupportedPipeline(f"{told}; efface needs {listed(NEEDED)}")
        self._check_class("pipeline", "diffusers", self.pipeline)
        for name, part in self.parts.items():
            if part is not None and part[0] in LIBRARIES:
                self._check_class(name, *part)

    def check_folders(self, folder: Path) -> None:
        """UnknownModel with the first part that is named and not there, or a network that lacks its form."""
        for name in self.present:
            if not (folder / name).is_dir() or not any((folder / name).iterdir()):
                raise UnknownModel(f"{self.where} has no {name}/, which its {INDEX} names")
            if name in NETWORKS and not (folder / name / "config.json").is_file():
                raise UnknownModel(f"{self.where} has no {name}/config.json, which says what its {name} is built of")

    def _check_class(self, name: str, library: str, cls: str) -> None:
        if not hasattr(importlib.import_module(library), cls.removeprefix("Flax")):
            version = importlib.metadata.version(library)
            raise UnknownModel(f"{self.where}: its {name} is a {cls}, which {library} {version} does not have")


def _part(pair: list[object]) -> tuple[str, str] | None:
    library, cls = pair
    return (str(library), str(cls)) if library is not None and cls is not None else None
