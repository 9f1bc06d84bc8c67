"""What can be on a pipeline while its pictures are made: nothing, erasures, a control."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

from efface.editor import Editor
from efface.evaluation.code import source_digest
from efface.evaluation.controls import control
from efface.registry import Registry


@dataclass(frozen=True)
class Stage:
    """A state of the pipeline: its name for people, what tells its pictures apart, in JSON, and how it is entered."""

    name: str
    identity: tuple[Any, ...]
    enter: Callable[[], AbstractContextManager[object]]


def base() -> Stage:
    return Stage("base", (), nullcontext)


def edited(editor: Editor, registry: Registry) -> Stage:
    """All erasures of an editor that are not at scale 0; it is disabled outside of the stage."""
    acting = [entry for entry in editor.entries if entry.scale > 0]
    identity = tuple(
        (entry.erasure.digest, entry.scale, source_digest(registry.method_of(entry.erasure.header))) for entry in acting
    )
    return Stage("edited", identity, partial(_enabled, editor))


def controlled(pipe: Any, name: str) -> Stage:
    return Stage(name, (name, importlib.metadata.version("efface")), partial(control, pipe, name))


@contextmanager
def _enabled(editor: Editor) -> Iterator[None]:
    editor.enable()
    try:
        yield
    finally:
        editor.disable()
