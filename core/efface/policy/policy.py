"""What a policy file says."""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from efface.errors import PolicyError
from efface.header import shown
from efface.policy.toml import toml
from efface.writing import write

FORMAT = 1

T = TypeVar("T")

Digests = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class PinnedErasure:
    """One erasure: its file, as written; its digest, as `efface show` prints it; who applies it; how strongly.

    `plugin` and `version` are the distribution that brought the method; "" for a method of no installed one.
    """

    file: str
    sha256: str
    method: str
    plugin: str
    version: str
    scale: float = 1.0


@dataclass(frozen=True)
class Policy:
    """A base model and erasures in order.

    `path` is the file this was read from or will be written to; relative names of files and of a local model are
    relative to its folder. `model` is a name, a hub id or, with `local`, a folder. `digests`: for each precision and
    each component the digest of its weights.
    """

    path: Path
    model: str
    local: bool
    digests: Digests
    erasures: tuple[PinnedErasure, ...]
    allow_other_base: bool = False

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Policy:
        """The policy in a file; PolicyError names the file and the first thing that is wrong with it."""
        try:
            return _read(Path(path), tomllib.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError, PolicyError) as error:
            reason = getattr(error, "strerror", None) or error
            raise PolicyError(f"{os.fspath(path)}: {reason}") from error

    def save(self) -> None:
        """Write the file in one step; CannotSave names path and reason."""
        write(self.path, toml(self._to_toml()).encode())

    def place(self, name: str) -> Path:
        """Where a file or folder that the policy names is."""
        return self.path.parent / name

    @property
    def source(self) -> str | Path:
        """What to load the model from."""
        return self.place(self.model) if self.local else self.model

    def _to_toml(self) -> dict[str, Any]:
        model: dict[str, Any] = {"path" if self.local else "name": self.model}
        model |= {"allow_other_base": True} if self.allow_other_base else {}
        return {
            "format": FORMAT,
            "model": model | {"sha256": {dtype: dict(each) for dtype, each in self.digests.items()}},
            "erasures": [
                {
                    "file": one.file,
                    "sha256": one.sha256,
                    "method": one.method,
                    "plugin": one.plugin,
                    "version": one.version,
                    "scale": one.scale,
                }
                for one in self.erasures
            ],
        }


def _read(path: Path, data: Mapping[str, Any]) -> Policy:
    _only(data, "the policy", ("format", "model", "erasures"))
    if (found := data.get("format")) != FORMAT or isinstance(found, bool):
        raise PolicyError(f"format is {found!r}; this efface reads {FORMAT}")
    model = _field(data, "the policy", "model", dict)
    _only(model, "model", ("name", "path", "allow_other_base", "sha256"))
    if ("name" in model) == ("path" in model):
        raise PolicyError("model needs either a name or a path")
    return Policy(
        path=path,
        model=_field(model, "model", "path" if "path" in model else "name", str),
        local="path" in model,
        digests={dtype: _texts(each, f"model.sha256.{dtype}") for dtype, each in _texts_by_dtype(model)},
        erasures=tuple(_erasure(one, number) for number, one in enumerate(data.get("erasures", []), 1)),
        allow_other_base=_field({"allow_other_base": False} | model, "model", "allow_other_base", bool),
    )


def _texts_by_dtype(model: Mapping[str, Any]) -> list[tuple[str, Any]]:
    found = list(_field(model, "model", "sha256", dict).items())
    if not found:
        raise PolicyError("model.sha256 has no digest")
    return found


def _erasure(data: object, number: int) -> PinnedErasure:
    where = f"erasure {number}"
    if not isinstance(data, Mapping):
        raise PolicyError(f"{where} is no table")
    _only(data, where, tuple(PinnedErasure.__dataclass_fields__))
    texts = {name: _field(data, where, name, str) for name in ("file", "sha256", "method", "plugin", "version")}
    return PinnedErasure(**texts, scale=_scale(data.get("scale", 1.0), where))


def _scale(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and value >= 0):
        raise PolicyError(f"{where}: scale must be a finite number >= 0, not {value!r}")
    return float(value)


def _texts(value: object, where: str) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise PolicyError(f"{where} must be a table of texts")
    return value


def _field(data: Mapping[str, Any], where: str, name: str, wanted: type[T]) -> T:
    if type(data.get(name)) is not wanted:
        words = {str: "a text", bool: "true or false", dict: "a table"}
        raise PolicyError(f"{where} needs {name}, {words[wanted]}")
    found: T = data[name]
    return found


def _only(data: Mapping[str, Any], where: str, known: tuple[str, ...]) -> None:
    for name in data:
        if name not in known:
            raise PolicyError(f"{where} has no field {shown(name)}; it has: {', '.join(known)}")
