"""Files and folders that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from efface.errors import CannotSave

PARTIAL = re.compile(r"\.efface-[0-9a-f]{16}\.partial")


def write(path: str | os.PathLike[str], data: bytes, *, make_folder: bool = False) -> None:
    """Write the file in one step; CannotSave names path and reason, and what was there still is."""
    write_by(path, lambda file: file.write_bytes(data), make_folder=make_folder)


def write_by(path: str | os.PathLike[str], make: Callable[[Path], object], *, make_folder: bool = False) -> None:
    """Write a file that `make` makes under the path it gets, in one step; errors as of `write`."""
    try:
        if make_folder:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        _write(Path(os.path.realpath(path)), make)
    except (OSError, ValueError) as error:
        raise CannotSave(f"Cannot save {os.fspath(path)}: {getattr(error, 'strerror', None) or error}") from error


def _write(target: Path, make: Callable[[Path], object]) -> None:
    if target.exists() and not target.is_file():
        raise ValueError("what is there is not a regular file")
    with beside(target, Path.mkdir) as partial:  # a folder, because `make` may replace the file
        made = partial / "file"
        make(made)
        made.chmod(partial.stat().st_mode & 0o666)  # what the umask left of it
        with made.open("r+b") as file:
            os.fsync(file.fileno())
        os.replace(made, target)


@contextlib.contextmanager
def beside(target: Path, make: Callable[[Path], object]) -> Iterator[Path]:
    """Something new beside a target, which `make` makes under the path it gets; what is not renamed goes in the end.

    What processes that were killed left there goes first: unlike theirs, the files of living ones are locked.
    """
    tidy(target.parent)
    partial, lock = _reserved(target, make)
    try:
        yield partial
    finally:
        if lock is not None:
            os.close(lock)
        _remove(partial)


def _reserved(target: Path, make: Callable[[Path], object]) -> tuple[Path, int | None]:
    """A new path with its lock; another one where somebody removed it before it was locked."""
    while True:
        partial = target.with_name(f".efface-{secrets.token_hex(8)}.partial")
        make(partial)
        with contextlib.suppress(FileNotFoundError):
            lock = _locked(partial)
            if lock is None or partial.exists():
                return partial, lock
            os.close(lock)


def _locked(path: Path, *, wait: bool = True) -> int | None:
    """A lock that ends with the process at the latest; None where there is none, OSError where it is taken."""
    try:
        import fcntl
    except ImportError:
        return None
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(descriptor)
        if wait:  # a file system without locks
            return None
        raise
    return descriptor


def tidy(folder: Path) -> None:
    """Remove from a folder what nobody is writing any more; where that cannot be told, it stays."""
    with contextlib.suppress(PermissionError):
        for name in filter(PARTIAL.fullmatch, os.listdir(folder)):
            with contextlib.suppress(OSError):
                lock = _locked(folder / name, wait=False)
                if lock is not None:
                    _remove(folder / name)
                    os.close(lock)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink() if not path.is_dir() else shutil.rmtree(path)
