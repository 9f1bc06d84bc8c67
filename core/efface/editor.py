"""The ordered stack of erasures on one U-Net."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

from efface import fingerprint
from efface.erasure import Erasure
from efface.errors import EffaceError, unknown
from efface.fusing import Fusion, fusion
from efface.insisting import insist
from efface.method import Fitted, Method, stacks
from efface.planning import Candidate, Plan, planned
from efface.registry import Registry
from efface.settings import build
from efface_hooks import BadEdit, EditLost, HookPoint, Patch, Wiring
from efface_hooks.patch import checked_scale
from efface_hooks.point import find_all


@dataclass(frozen=True)
class Entry:
    """One erasure in an editor: its label there, how strong it is, whether it is on."""

    label: str
    erasure: Erasure
    scale: float = 1.0
    enabled: bool = True

    @property
    def acts(self) -> bool:
        return self.enabled and self.scale > 0


class Editor:
    """Puts erasures on a pipeline and takes them off again.

    `Editor(pipe, a, b)` attaches at once; as a context manager it detaches everything on the way out. What is on the
    pipeline depends on the list of enabled erasures alone, not on how it came about. Every change either happens
    whole or raises and leaves things as they were. Erasures are named by label ("uce-cat") or by the object itself.

    Raises WrongBase for an erasure of another model (`allow_other_base=True` lets other weights of the same structure
    pass, and `plan()` shows it), AlreadyEdited when the U-Net has another editor. `allow=("prompt_embeds",)` lets
    precomputed embeddings pass although a text encoder is edited.
    """

    def __init__(
        self,
        pipe: Any,
        *erasures: Erasure,
        allow: Iterable[str] = (),
        allow_other_base: bool = False,
        registry: Registry | None = None,
    ) -> None:
        self.pipe = pipe
        self._registry = registry or Registry.installed()
        self._allow_other_base = allow_other_base
        self._wiring = Wiring(pipe, owner=self, allow=allow)
        self._wiring.require_free()
        self._entries: tuple[Entry, ...] = ()
        self._fused: Fusion | None = None
        self._likenesses: dict[str, fingerprint.Likeness] = {}
        sketches: fingerprint.Sketches = {}
        self._change([self._entry(erasure, label, sketches) for erasure, label in _labelled((), erasures)])

    @staticmethod
    def of(pipe: Any) -> Editor | None:
        """The editor whose erasures are on the pipeline's U-Net, if there is one."""
        wiring = Wiring.of(pipe)
        return wiring.owner if wiring is not None and isinstance(wiring.owner, Editor) else None

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Every erasure in order, also the disabled ones."""
        return self._entries

    def attach(self, erasure: Erasure, *, scale: float = 1.0, enabled: bool = True, label: str = "") -> str:
        """Put an erasure on top of the stack and return its label."""
        self._refuse_fused("change the list")
        ((_, own),) = _labelled([entry.label for entry in self._entries], [erasure], label)
        entry = replace(self._entry(erasure, own, {}), scale=checked_scale(scale), enabled=enabled)
        self._change([*self._entries, entry])
        return own

    def detach(self, *which: str | Erasure) -> None:
        """Take erasures off, all of them when none is named."""
        gone = [self._found(one) for one in which] or list(self._entries)
        self._change([entry for entry in self._entries if entry not in gone])

    def enable(self, *which: str | Erasure) -> None:
        """Switch erasures on, all of them when none is named."""
        self._switch(which, True)

    def disable(self, *which: str | Erasure) -> None:
        """Switch erasures off, all of them when none is named; they stay in the list."""
        self._switch(which, False)

    def scale(self, which: str | Erasure, scale: float) -> None:
        """Make an erasure weaker or stronger: a finite number >= 0; 0 is off, 1 as fitted."""
        entry = self._found(which)
        self._exchange({entry.label: replace(entry, scale=checked_scale(scale))})

    def move(self, which: str | Erasure, position: int) -> None:
        """Put an erasure at another place in the order."""
        entry = self._found(which)
        others = [other for other in self._entries if other is not entry]
        others.insert(position, entry)
        self._change(others)

    def close(self) -> None:
        """Detach everything: the pipeline is as it was before this editor, bit for bit.

        Raises EffaceError, before anything is changed, when fused weights were changed by something else since.
        """
        if self._fused is not None:
            self._fused.check()
        insist(self._strip)

    def reattach(self) -> None:
        """Put the same erasures on the modules that the pipeline has now, after a LoRA was loaded, say."""
        self._change(self._entries)

    def verify(self) -> list[EditLost]:
        """What would make the next generation fail, as its errors; empty when every edit is in place."""
        return self._wiring.verify()

    @property
    def fused(self) -> bool:
        """Whether the edits are in the weights now, and no hooks on."""
        return self._fused is not None

    @property
    def patches(self) -> tuple[Patch, ...]:
        """The edits of every erasure that acts, in order; EffaceError while they are fused into the weights."""
        self._refuse_fused("list the edits")
        return self._wiring.patches

    def plan(self, *more: Erasure, scales: Sequence[float] = ()) -> Plan:
        """What the list touches, where its erasures meet, what goes around them and what they cost; `str()` tells it.

        `more` are planned on top of the list, with `scales` or at 1, and not attached: nothing changes. A base that
        attaching would refuse is a finding; raises WrongBase for another structure all the same.
        """
        if more:
            self._refuse_fused("plan more")
        labelled = _labelled([entry.label for entry in self._entries], more)
        strong = [checked_scale(scale) for scale in scales] or [1.0] * len(more)
        added = [Entry(label, one, scale) for (one, label), scale in zip(labelled, strong, strict=True)]
        sketches: fingerprint.Sketches = {}
        return planned(
            self.pipe,
            [self._candidate(entry, sketches) for entry in (*self._entries, *added)],
            self._wiring.allow,
            self._allow_other_base,
        )

    def fuse(self) -> None:
        """Write maps and adds into the weights, in float64 and cast once, and take the hooks off.

        Costs nothing per step afterwards; the base weights are kept on the CPU for `unfuse`. Raises BadEdit, before
        anything is changed, for erasures that are not weight changes and for adapted or quantised layers.
        """
        self._refuse_fused("fuse again")
        patches = self._wiring.patches
        change = fusion(self.pipe, patches)
        try:
            self._wiring.hold(change.places)  # still the U-Net's one editor
            change.write()
            self._fused = change
        except BaseException:
            change.undo()
            self._wiring.set(patches)
            raise

    def obstacles(self) -> dict[str, str]:
        """Why erasures that act cannot be fused, by label; empty where `fuse` can."""
        found = {}
        for entry in self._entries:
            try:
                fusion(self.pipe, [self._patch([entry])] if entry.acts else [])
            except BadEdit as error:
                found[entry.label] = str(error).removeprefix("Cannot fuse: ")
        return found

    def unfuse(self) -> None:
        """Put the kept base weights back, bit for bit, and the hooks on again."""
        if self._fused is None:
            raise EffaceError("This editor is not fused")
        change, patches = self._fused, self._patches(self._entries)
        change.check()
        try:
            change.undo()
            self._wiring.set(patches)
            self._fused = None
        except BaseException:
            self._wiring.hold(change.places)
            change.write()
            raise

    def __deepcopy__(self, memo: dict[int, Any]) -> Editor:
        """The editor of a copied pipeline; erasures and registry are shared."""
        twin = memo[id(self)] = copy.copy(self)
        for name in ("pipe", "_wiring", "_fused"):
            setattr(twin, name, copy.deepcopy(getattr(self, name), memo))
        return twin

    def __enter__(self) -> Editor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _entry(self, erasure: Erasure, label: str, sketches: fingerprint.Sketches) -> Entry:
        self._likenesses[label] = self._likeness(erasure, self._allow_other_base, sketches)
        return Entry(label, erasure)

    def _likeness(self, erasure: Erasure, allowed: bool, sketches: fingerprint.Sketches) -> fingerprint.Likeness:
        return fingerprint.check(erasure.header.base, self.pipe, self._points(erasure), allowed, sketches)

    def _candidate(self, entry: Entry, sketches: fingerprint.Sketches) -> Candidate:
        attached = entry in self._entries
        likeness = self._likenesses[entry.label] if attached else self._likeness(entry.erasure, True, sketches)
        scale = entry.scale if entry.acts else 0.0
        return Candidate(entry.label, scale, entry.erasure, self._method(entry), self._patch([entry]), likeness)

    def _points(self, erasure: Erasure) -> list[HookPoint]:
        return find_all(self.pipe, erasure.header.points, self._registry.points(self.pipe))

    def _found(self, which: str | Erasure) -> Entry:
        for entry in self._entries:
            if which in (entry.label, entry.erasure):
                return entry
        wanted = which if isinstance(which, str) else repr(which)
        raise EffaceError(unknown("erasure", wanted, [entry.label for entry in self._entries], "attached"))

    def _switch(self, which: Sequence[str | Erasure], enabled: bool) -> None:
        entries = [self._found(one) for one in which] or self._entries
        self._exchange({entry.label: replace(entry, enabled=enabled) for entry in entries})

    def _exchange(self, changed: dict[str, Entry]) -> None:
        self._change([changed.get(entry.label, entry) for entry in self._entries])

    def _change(self, entries: Sequence[Entry]) -> None:
        """The one way by which anything gets on or off: all patches anew, in order."""
        self._refuse_fused("change the list")
        patches, former = self._patches(entries), self._entries
        try:
            self._entries = tuple(entries)
            self._wiring.set(patches)
        except BaseException:
            self._entries = former
            raise

    def _strip(self) -> None:
        if self._fused is not None:
            self._fused.undo()
        self._wiring.clear()
        self._fused, self._entries = None, ()

    def _refuse_fused(self, what: str) -> None:
        if self._fused is not None:
            raise EffaceError(f"Cannot {what} while fused; call unfuse() first")

    def _patches(self, entries: Sequence[Entry]) -> list[Patch]:
        return [self._patch(group) for group in self._groups(entries)]

    def _groups(self, entries: Sequence[Entry]) -> Iterator[list[Entry]]:
        """Entries that act; those of a stacking method with equal settings together, at the first one's place."""
        waiting = [entry for entry in entries if entry.acts]
        while waiting:
            first = waiting.pop(0)
            method = self._method(first)
            together = [entry for entry in waiting if stacks(type(method)) and self._method(entry) == method]
            waiting = [entry for entry in waiting if entry not in together]
            yield [first, *together]

    def _patch(self, group: Sequence[Entry]) -> Patch:
        method = self._method(group[0])
        scale = 1.0 if stacks(type(method)) else group[0].scale
        patch = Patch(self.pipe, self._registry.points(self.pipe), scale)
        method.apply(patch, [Fitted(entry.erasure.fit, entry.erasure.request, entry.scale) for entry in group])
        return patch

    def _method(self, entry: Entry) -> Method:
        header = entry.erasure.header
        return build(self._registry.method_of(header), header.settings)


@contextmanager
def edited(pipe: Any, erasures: Sequence[Erasure], registry: Registry | None = None) -> Iterator[Editor | None]:
    """An editor for these erasures while the context is open; None, and nothing done, for an empty list."""
    if not erasures:
        yield None
        return
    with Editor(pipe, *erasures, registry=registry) as editor:
        yield editor


def _labelled(taken: Iterable[str], erasures: Iterable[Erasure], label: str = "") -> list[tuple[Erasure, str]]:
    """Erasures with labels that differ: the one asked for, or method and first concept, numbered when taken."""
    used, named = set(taken), []
    for erasure in erasures:
        stem = label or f"{erasure.method}-{erasure.concepts[0].text.replace(' ', '-')}"
        if label in used:
            raise EffaceError(f"The label {label!r} is taken; labels: {', '.join(sorted(used))}")
        own = next(name for name in _numbered(stem) if name not in used)
        used.add(own)
        named.append((erasure, own))
    return named


def _numbered(stem: str) -> Iterator[str]:
    yield stem
    number = 2
    while True:
        yield f"{stem}-{number}"
        number += 1
