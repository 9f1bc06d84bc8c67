"""Folders of pictures as `efface generate` writes them: PROMPT-SEED.png."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from efface.errors import unknown
from efface_judges.errors import BadPictures

if TYPE_CHECKING:
    from PIL.Image import Image

KINDS = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class Folder:
    """The pictures of a folder, by name."""

    path: Path
    files: tuple[Path, ...]

    @classmethod
    def of(cls, path: Path) -> Folder:
        """BadPictures for a folder that is not there or has no picture."""
        if not path.is_dir():
            raise BadPictures(f"There is no folder {path}")
        files = tuple(sorted(file for file in path.iterdir() if file.suffix.lower() in KINDS))
        if not files:
            raise BadPictures(f"{path} has no pictures ({', '.join(KINDS)})")
        return cls(path, files)

    @property
    def names(self) -> list[str]:
        return [file.name for file in self.files]

    def images(self) -> list[Image]:
        """All of them in RGB; BadPictures names one that cannot be read."""
        return [_read(file) for file in self.files]

    def paired(self, other: Folder) -> None:
        """BadPictures unless both have the same names."""
        alone = sorted(set(self.names) ^ set(other.names))
        if alone:
            raise BadPictures(
                f"{self.path} and {other.path} are compared picture by picture, and {alone[0]} is in one of them only"
            )

    def prompts(self, stated: Mapping[str, str] | None = None) -> list[str]:
        """The prompt of each picture: as stated by its name, or else its name without seed and hyphens."""
        if stated is None:
            return [file.stem.rpartition("-")[0].replace("-", " ") or file.stem for file in self.files]
        for name in self.names:
            if name not in stated:
                raise BadPictures(f"Nobody says what {name} was made of: {unknown('picture', name, stated, 'stated')}")
        return [stated[name] for name in self.names]


def stated_prompts(files: Sequence[Path]) -> dict[str, str]:
    """Prompts by the name of the picture, from what `efface generate --json` printed."""
    return dict(pair for file in files for pair in _stated(file))


def _stated(file: Path) -> Iterator[tuple[str, str]]:
    try:
        for one in json.loads(file.read_text(encoding="utf-8"))["files"]:
            yield Path(one["file"]).name, str(one["prompt"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise BadPictures(f"{file} is not what efface generate --json prints") from error


def _read(file: Path) -> Image:
    from PIL import Image as Pillow

    try:
        with Pillow.open(file) as picture:
            return picture.convert("RGB")
    except (OSError, ValueError) as error:
        raise BadPictures(f"Cannot read the picture {file}: {error}") from error
