"""Pictures that were made before, found again by all that they depend on."""

from __future__ import annotations

import hashlib
import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from efface.header import canonical_json
from efface.writing import tidy, write

if TYPE_CHECKING:
    from PIL.Image import Image

Pixels = NDArray[np.uint8]

CACHE = "EFFACE_CACHE"


def usual_folder(environment: Mapping[str, str] | None = None, platform: str = sys.platform) -> Path:
    """The folder that EFFACE_CACHE names, else `efface` where programs of this platform keep what they can make again.

    The environment is this process's unless given.
    """
    known = os.environ if environment is None else environment
    if known.get(CACHE):
        return Path(known[CACHE]).expanduser()
    if known.get("XDG_CACHE_HOME"):
        return Path(known["XDG_CACHE_HOME"]) / "efface"
    if platform == "win32" and known.get("LOCALAPPDATA"):
        return Path(known["LOCALAPPDATA"]) / "efface" / "cache"
    return Path.home() / ("Library/Caches" if platform == "darwin" else ".cache") / "efface"


class Gallery:
    """Batches of pictures by content key: in a folder, where they outlive the process, or in memory.

    The key is a sha256 over facts in JSON. A file holds one batch without loss and is written when the batch is
    finished; a damaged one is made anew. What a pipeline has on it besides efface's edits, such as hooks of others,
    the facts do not know: evaluate such a pipeline with a gallery in memory.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._kept: dict[str, Pixels] = {}

    def pictures(self, facts: Mapping[str, Any], make: Callable[[], Sequence[Image]]) -> list[Image]:
        """The batch that these facts describe; made, and kept, if it is not there."""
        from PIL import Image

        found = self._read(*_named(facts))
        if found is None:
            found = self.keep(facts, make())
        return [Image.fromarray(one) for one in found]

    def has(self, facts: Mapping[str, Any]) -> bool:
        """Whether the batch is there, whole."""
        return self._read(*_named(facts)) is not None

    def keep(self, facts: Mapping[str, Any], images: Sequence[Image]) -> Pixels:
        """Keep a batch, in place of what was there; its pixels (n, H, W, 3)."""
        pixels = np.stack([np.asarray(image.convert("RGB")) for image in images])
        self._keep(*_named(facts), pixels)
        return pixels

    def tidy(self) -> None:
        """Remove what processes that were killed have left half written."""
        if self.folder is not None:
            for folder in (self.folder / "pictures").glob("*/"):
                tidy(folder)

    def _read(self, key: str, text: str) -> Pixels | None:
        if self.folder is None:
            return self._kept.get(key)
        try:
            data = self._file(self.folder, key).read_bytes()
        except OSError:  # whatever is wrong with the folder, writing to it will say
            return None
        return _unpacked(data, text)

    def _keep(self, key: str, text: str, pictures: Pixels) -> None:
        if self.folder is None:
            self._kept[key] = pictures
            return
        buffer = io.BytesIO()
        np.savez_compressed(buffer, pictures=pictures, facts=np.array(text))
        write(self._file(self.folder, key), buffer.getvalue(), make_folder=True)

    @staticmethod
    def _file(folder: Path, key: str) -> Path:
        return folder / "pictures" / key[:2] / f"{key}.npz"


def _named(facts: Mapping[str, Any]) -> tuple[str, str]:
    """The key of a batch, and the text that it is the digest of."""
    text = canonical_json(facts)
    return hashlib.sha256(text.encode()).hexdigest(), text


def _unpacked(data: bytes, text: str) -> Pixels | None:
    """The pictures in a file, if it is whole and holds these facts."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            found, facts = file["pictures"], str(file["facts"])
    except Exception:  # a damaged archive makes numpy and zipfile raise all kinds
        return None
    fine = facts == text and found.dtype == np.uint8 and found.ndim == 4 and found.shape[-1] == 3
    return found if fine else None
