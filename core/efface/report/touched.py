"""What an attached erasure touches, read off the pipeline while it is on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from efface_hooks import Dense, LowRank, Patch
from efface_hooks.patch import Edit


@dataclass(frozen=True)
class EditGroup:
    """Edits of one verb, kind of point and form: `form` is low-rank, dense or function; the last has no matrix."""

    verb: str
    kind: str
    form: str
    rank: int | None
    shape: tuple[int, int] | None

    def to_json(self) -> dict[str, Any]:
        return {
            "verb": self.verb,
            "kind": self.kind,
            "form": self.form,
            "rank": self.rank,
            "shape": None if self.shape is None else list(self.shape),
        }


@dataclass(frozen=True)
class Touched:
    """Names of the edited points, how many there are of each kind, and the edits that alike ones are grouped in."""

    points: tuple[str, ...]
    kinds: dict[str, int]
    edits: dict[EditGroup, int]

    @classmethod
    def by(cls, patches: Sequence[Patch]) -> Touched:
        edits = [edit for patch in patches for edit in patch.edits]
        kinds = {edit.point.name: edit.point.kind for edit in edits}
        return cls(tuple(kinds), dict(Counter(kinds.values())), dict(Counter(map(_group, edits))))

    def to_json(self) -> dict[str, Any]:
        return {
            "points": list(self.points),
            "kinds": dict(self.kinds),
            "edits": [group.to_json() | {"number": number} for group, number in self.edits.items()],
        }


def _group(edit: Edit) -> EditGroup:
    if isinstance(edit.what, LowRank | Dense):
        form = "low-rank" if isinstance(edit.what, LowRank) else "dense"
        return EditGroup(edit.verb, edit.point.kind, form, edit.what.rank, edit.what.shape)
    return EditGroup(edit.verb, edit.point.kind, "function", None, None)
