"""What can be on a pipeline while its pictures are made: nothing, all erasures, one of them, a control."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

from efface.editor import Editor, Entry
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
    return Stage("edited", _identity(editor.entries, registry), partial(_enabled, editor))


def alone(editor: Editor, entry: Entry, registry: Registry) -> Stage:
    """One erasure of the editor, the others off."""
    return Stage(entry.label, _identity([entry], registry), partial(_enabled, editor, entry.label))


def controlled(pipe: Any, name: str) -> Stage:
    return Stage(name, (name, importlib.metadata.version("efface")), partial(control, pipe, name))


def _identity(entries: Iterable[Entry], registry: Registry) -> tuple[Any, ...]:
    acting = [entry for entry in entries if entry.scale > 0]
    return tuple(
        (entry.erasure.digest, entry.scale, source_digest(registry.method_of(entry.erasure.header))) for entry in acting
    )


@contextmanager
def _enabled(editor: Editor, *labels: str) -> Iterator[None]:
    editor.enable(*labels)
    try:
        yield
    finally:
        editor.disable()
