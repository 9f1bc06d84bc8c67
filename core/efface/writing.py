"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from efface.errors import CannotSave


def write(path: str | os.PathLike[str], data: bytes, *, make_folder: bool = False) -> None:
    """Write the file in one step; CannotSave names path and reason, and what was there still is."""
    try:
        if make_folder:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        _write(Path(os.path.realpath(path)), data)
    except (OSError, ValueError) as error:
        raise CannotSave(f"Cannot save {os.fspath(path)}: {getattr(error, 'strerror', None) or error}") from error


def _write(target: Path, data: bytes) -> None:
    if target.exists() and not target.is_file():
        raise ValueError("what is there is not a regular file")
    partial = target.with_name(f".efface-{secrets.token_hex(8)}.partial")
    try:
        with partial.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, target)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
