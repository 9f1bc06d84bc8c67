"""Whether a file could be written, found out before the work whose result goes there."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from efface.errors import CannotSave


def check_target(path: Path, force: bool) -> None:
    """CannotSave for a file whose folder is missing or read-only, and for one that is there, unless `force`."""
    real = Path(os.path.realpath(path))
    if path.is_dir():
        raise CannotSave(f"{path} is a folder; name a file in it")
    if path.exists() and not path.is_file():
        raise CannotSave(f"{path} is there and is not a regular file")
    if path.exists() and not force:
        raise CannotSave(f"{path} is there already; overwrite it with --force or choose another name")
    if not real.parent.is_dir():
        what = "is not a folder" if real.parent.exists() else "does not exist"
        raise CannotSave(f"Cannot save {path}: {real.parent} {what}")
    _check_writable(real.parent, path)


def check_folder(folder: Path) -> None:
    """CannotSave for a folder that is not there and cannot be made, or in which nothing can be written."""
    above = [Path(os.path.abspath(folder)), *Path(os.path.abspath(folder)).parents]
    nearest = next(place for place in above if place.exists())
    if not nearest.is_dir():
        raise CannotSave(f"Cannot write to {folder}: {nearest} is not a folder")
    _check_writable(nearest, folder)


def _check_writable(folder: Path, path: Path) -> None:
    """Permissions do not tell on every system, a file does."""
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise CannotSave(f"Cannot save {path}: {error.strerror}") from error
