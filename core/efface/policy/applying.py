"""Putting the erasures of a policy on a pipeline."""

from __future__ import annotations

import os
from typing import Any

from efface.editor import Editor
from efface.errors import PolicyError
from efface.policy.checking import erasures_of, in_a_line, model_of
from efface.policy.policy import Policy
from efface.registry import Registry


def apply(pipe: Any, policy: str | os.PathLike[str] | Policy, *, registry: Registry | None = None) -> Editor:
    """An editor with a policy's erasures on this pipeline, in their order and at their scales.

    Files, digests, versions of plugins and the pipeline's weights are checked before anything is attached: PolicyError
    names everything that does not match. AlreadyEdited where the pipeline has an editor.
    """
    registry = registry or Registry.installed()
    wanted = policy if isinstance(policy, Policy) else Policy.load(policy)
    erasures, found = erasures_of(wanted, registry)
    editor = Editor(pipe, allow_other_base=wanted.allow_other_base, registry=registry)
    found += model_of(wanted, pipe)
    if found:
        raise PolicyError(f"{wanted.path}: {in_a_line(found)}")
    try:
        for pinned, erasure in zip(wanted.erasures, erasures, strict=True):
            editor.attach(erasure, scale=pinned.scale)
    except BaseException:
        editor.close()
        raise
    return editor
