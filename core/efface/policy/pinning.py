"""Writing down what is used, so that nothing else is used later."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from efface.editor import Editor
from efface.erasure import Erasure
from efface.errors import WrongBase
from efface.policy.identity import digests
from efface.policy.policy import PinnedErasure, Policy
from efface.registry import Registry


def pin(
    pipe: Any,
    model: str,
    files: Sequence[str | os.PathLike[str]],
    path: str | os.PathLike[str],
    *,
    scales: Sequence[float] = (),
    allow_other_base: bool = False,
    registry: Registry | None = None,
) -> Policy:
    """The policy, not yet saved, of a pipeline that was loaded from `model` with the erasures in these files in order.

    WrongBase for an erasure that could not be attached to it, unless allowed. `path` is where the policy will be.
    """
    registry, place = registry or Registry.installed(), Path(path)
    erasures = [Erasure.load(file) for file in files]
    editor = Editor(pipe, allow_other_base=allow_other_base, registry=registry)  # AlreadyEdited for an edited one
    for refusal in editor.plan(*erasures, scales=scales).refusals:
        raise WrongBase(refusal.text)
    strong = list(scales) or [1.0] * len(erasures)
    pinned = zip(files, erasures, strong, strict=True)
    return Policy(
        path=place,
        model=_relative(Path(model), place) if Path(model).is_dir() else model,
        local=Path(model).is_dir(),
        digests=digests(pipe),
        erasures=tuple(_pinned(_relative(Path(file), place), one, scale, registry) for file, one, scale in pinned),
        allow_other_base=allow_other_base,
    )


def _pinned(file: str, erasure: Erasure, scale: float, registry: Registry) -> PinnedErasure:
    plugin, version = registry.origin(registry.method_of(erasure.header))
    return PinnedErasure(file, erasure.digest, erasure.method, plugin, version, float(scale))


def _relative(target: Path, policy: Path) -> str:
    """A path as seen from the policy's folder, with forward slashes; whole where there is no way."""
    whole = Path(os.path.realpath(target.parent), target.name)
    try:
        return Path(os.path.relpath(whole, os.path.realpath(policy.parent))).as_posix()
    except ValueError:  # another drive
        return whole.as_posix()
