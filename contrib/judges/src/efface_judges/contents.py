"""Files as digests, and libraries as versions: what a figure depends on besides the pictures."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Iterable, Sequence
from pathlib import Path


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def folder_digest(folder: Path, patterns: Sequence[str]) -> str:
    """SHA-256 over names and contents of the files of a folder that match one of the patterns."""
    chosen = sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
    return text_digest(f"{path.name} {file_digest(path)}" for path in chosen)


def text_digest(lines: Iterable[str]) -> str:
    """SHA-256 of lines of text."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def versions(*names: str) -> dict[str, str]:
    """Versions of installed distributions."""
    return {name: importlib.metadata.version(name) for name in names}
