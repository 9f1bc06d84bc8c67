"""Which of a distribution's requirements are not met here, from metadata alone."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator


def unmet(distribution: str) -> list[str]:
    """Each requirement that is not met, in words; empty for a distribution that is not installed."""
    try:
        required = importlib.metadata.requires(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    return [fault for line in required for fault in _faults(line)]


def _faults(line: str) -> Iterator[str]:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        wanted = Requirement(line)
    except InvalidRequirement:
        yield f"has a requirement that cannot be read: {line!r}"
        return
    if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
        return
    try:
        found = importlib.metadata.version(wanted.name)
    except importlib.metadata.PackageNotFoundError:
        yield f"needs {wanted.name}{wanted.specifier}, which is not installed"
        return
    if not wanted.specifier.contains(found, prereleases=True):
        yield f"needs {wanted.name}{wanted.specifier}, and {found} is installed"
