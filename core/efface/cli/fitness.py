"""Which methods fit a model: whether it has the kinds of hook point that they say they touch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from efface.cli.console import Console, table
from efface.cli.opening import open_model
from efface_hooks.errors import HookError

if TYPE_CHECKING:
    from efface.model import Model
    from efface.registry import Registry


@dataclass(frozen=True)
class Fitness:
    """A model as loaded, its points per kind, and for each method the kinds it lacks here (None: it declares none)."""

    model: str
    pipeline: str = ""
    device: str = ""
    dtype: str = ""
    kinds: dict[str, int] = field(default_factory=dict)
    lacking: dict[str, list[str] | None] = field(default_factory=dict)
    fault: str = ""

    @classmethod
    def of(cls, console: Console, name: str, registry: Registry, device: str, dtype: str) -> Fitness:
        from efface.model import Model

        try:
            model = Model(open_model(console, name, registry, device=device, dtype=dtype), registry)
            kinds = Counter(point.kind for point in model.points())
        except (HookError, OSError, RuntimeError) as error:
            return cls(name, fault=str(error))
        lacking = {key: _lacking(method, model) for key, method in registry.methods().items()}
        found = str(model.dtype).removeprefix("torch.")
        return cls(name, type(model.pipe).__name__, str(model.device), found, dict(kinds), lacking)

    @property
    def notes(self) -> list[str]:
        """Methods that this model cannot be edited by, and why."""
        return [
            f"method {name} does not fit {self.model}: there are no points of kind {', '.join(kinds)}"
            for name, kinds in self.lacking.items()
            if kinds
        ]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> Iterator[str]:
        if self.fault:
            yield f"model {self.model}: {self.fault}"
            return
        yield f"model {self.model}: {self.pipeline} on {self.device} in {self.dtype}"
        yield from table(("kind of point", "points"), self.kinds.items(), indent="  ")
        yield from table(
            ("method", "fits"), [(name, _fits(kinds)) for name, kinds in self.lacking.items()], indent="  "
        )


def _lacking(method: type, model: Model) -> list[str] | None:
    from efface.method import covers

    declared = covers(method)
    return None if declared is None else [kind for kind in declared.kinds if not _has(model, kind)]


def _has(model: Model, kind: str) -> bool:
    from efface_hooks import UnknownPoint

    try:
        return bool(model.points(kind))
    except UnknownPoint:
        return False


def _fits(lacking: list[str] | None) -> str:
    if lacking is None:
        return "does not say what it touches"
    return f"no: there are no points of kind {', '.join(lacking)}" if lacking else "yes"
