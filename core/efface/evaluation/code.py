"""The source of a method as a digest: what an erasure does to a pipeline depends on it."""

from __future__ import annotations

import hashlib
import inspect
from pathlib import Path


def source_digest(cls: type) -> str:
    """sha256 over the package that a class comes from, or over its one file; "" for a class without a file."""
    try:
        sources = _sources(Path(inspect.getfile(cls)))
    except (TypeError, OSError):
        return ""
    digest = hashlib.sha256()
    for path in sources:
        digest.update(f"{path.name} ".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _sources(file: Path) -> list[Path]:
    """Every file of the outermost package that a file is in; the file alone if it is in none."""
    package = file
    while (package.parent / "__init__.py").is_file():
        package = package.parent
    return [file] if package == file else sorted(package.rglob("*.py"))
