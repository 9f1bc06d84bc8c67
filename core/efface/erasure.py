"""A fit with its header, in memory and in a file.

The file is safetensors: named tensors and, as its one piece of metadata, the header as JSON with a sha256 over header
and tensors. It holds no code, and reading it runs none.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import importlib.metadata
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from efface.concept import Concept, Request
from efface.errors import BadArtifact, PluginError
from efface.header import Header, TensorSpec, canonical_json, shown, strict_json
from efface.method import Fit
from efface.settings import as_dict
from efface.writing import write_by

if TYPE_CHECKING:
    from efface.method import Method

METADATA_KEY = "efface"
LARGEST_HEADER = 16 * 2**20
LONGEST_REASON = 500
LIBRARIES = ("efface", "torch", "diffusers", "transformers", "safetensors")


@dataclass(frozen=True, eq=False, repr=False)
class Erasure:
    """What one fit of a method found for one request; two erasures are equal if header and tensors are.

    Making one checks it: BadArtifact if tensors and header disagree or a number is not finite.
    """

    header: Header
    tensors: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        _check_tensors(self.header.tensors, self.tensors)

    @classmethod
    def of(
        cls,
        method: Method,
        fit: Fit,
        request: Request,
        *,
        origin: tuple[str, str] = ("", ""),
        base: Mapping[str, Any],
        points: Iterable[str],
        seed: int = 0,
    ) -> Erasure:
        """The erasure for a fit: `origin` as `Registry.origin` gives it, `base` the fingerprint of the model.

        The tensors are copied to the CPU, in the precision they have.
        """
        tensors = {name: _own(method, name, tensor) for name, tensor in fit.tensors.items()}
        settings = as_dict(method)
        try:
            header = Header(
                method=method.name,
                distribution=origin[0],
                version=origin[1],
                settings=settings,
                request=request,
                base=dict(base),
                points=tuple(points),
                seed=seed,
                libraries=_libraries(),
                facts=fit.facts,
                report=fit.report,
                tensors={name: _spec(tensor) for name, tensor in tensors.items()},
            )
            return cls(header, tensors)
        except BadArtifact as error:
            raise BadArtifact(f"Method {method.name!r} made no sound erasure: {error}") from error

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Erasure:
        """The erasure in a file; BadArtifact names the file and what is wrong with it."""
        try:
            with _opened(Path(path)) as file:
                return _parsed(_contents(file))
        except (OSError, ValueError, BadArtifact) as error:
            raise BadArtifact(f"{os.fspath(path)}: {_reason(error)}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file in one step: it is there whole or not at all, and equal erasures give equal bytes.

        CannotSave names the path and the reason; what was there before still is.
        """
        write_by(path, self._write)

    def to_dict(self) -> dict[str, Any]:
        """The header as JSON, with the digest as `sha256`; a copy, free to be changed."""
        return copy.deepcopy(self.header.to_json()) | {"sha256": self.digest}

    @cached_property
    def digest(self) -> str:
        """sha256 over header and tensors."""
        digest = hashlib.sha256(canonical_json(self.header.to_json()).encode())
        for _, tensor in sorted(self.tensors.items()):
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    @property
    def method(self) -> str:
        return self.header.method

    @property
    def request(self) -> Request:
        return self.header.request

    @property
    def concepts(self) -> tuple[Concept, ...]:
        return self.header.request.concepts

    @property
    def fit(self) -> Fit:
        return Fit(dict(self.tensors), self.header.facts, self.header.report)

    def _write(self, path: Path) -> None:
        """Write the file, from the tensors' own memory."""
        metadata = {METADATA_KEY: canonical_json(self.to_dict())}
        try:
            safetensors.torch.save_file(dict(self.tensors), path, metadata=metadata)
        except safetensors.SafetensorError as error:
            raise OSError(str(error)) from error
        with path.open("rb") as file:
            if _header_length(file.read(8)) > LARGEST_HEADER:
                raise ValueError("facts and report are too large; numbers belong in tensors")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Erasure) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        concepts = ", ".join(repr(concept.text) for concept in self.concepts)
        return f"<Erasure of {concepts} by {self.method}, {self.digest[:12]}>"


def _own(method: Method, name: str, tensor: object) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise PluginError(f"Method {method.name!r} returned {name!r} as a tensor, which is {tensor!r}")
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def _spec(tensor: Tensor) -> TensorSpec:
    return TensorSpec(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))


def _libraries() -> dict[str, str]:
    versions = {}
    for name in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def _check_tensors(specs: Mapping[str, TensorSpec], tensors: Mapping[str, Tensor]) -> None:
    for name in sorted(specs.keys() ^ tensors.keys()):
        raise BadArtifact(f"tensor {shown(name)} is " + ("missing" if name in specs else "not in the header"))
    for name, tensor in tensors.items():
        found = _spec(tensor)
        if found != specs[name]:
            raise BadArtifact(f"tensor {shown(name)} is {_form(found)}, the header says {_form(specs[name])}")
        if not torch.isfinite(tensor).all():
            raise BadArtifact(f"tensor {shown(name)} holds numbers that are not finite")


def _form(spec: TensorSpec) -> str:
    return f"{spec.dtype} {list(spec.shape)}"


def _opened(path: Path) -> BinaryIO:
    if path.is_dir():
        raise BadArtifact("this is a folder, not an erasure")
    if path.exists() and not path.is_file():
        raise BadArtifact("this is not a regular file")
    return path.open("rb")


def _contents(file: BinaryIO) -> bytes:
    """The bytes of a file that starts like an erasure; a header's claims are checked before anything is read."""
    size = os.fstat(file.fileno()).st_size
    length = _header_length(file.read(8))
    if size < 8 or length > size - 8:
        raise BadArtifact("this is not a safetensors file, or it was cut short")
    if length > LARGEST_HEADER:
        raise BadArtifact(f"its header claims {length} bytes; the most is {LARGEST_HEADER}")
    _header_text(file.read(length))
    file.seek(0)
    return file.read(size)


def _header_length(data: bytes) -> int:
    return int.from_bytes(data[:8], "little")


def _header_text(frame: bytes) -> str:
    """The one piece of metadata that an erasure has, out of the safetensors header."""
    outer = strict_json(frame, "the safetensors header")
    metadata = outer.get("__metadata__") if isinstance(outer, dict) else None
    if not isinstance(metadata, dict) or METADATA_KEY not in metadata:
        raise BadArtifact(f"this is not an erasure: the safetensors header has no metadata {METADATA_KEY!r}")
    if set(metadata) != {METADATA_KEY} or not isinstance(metadata[METADATA_KEY], str):
        raise BadArtifact(f"the safetensors header must have the metadata {METADATA_KEY!r}, a text, and no other")
    return str(metadata[METADATA_KEY])


def _parsed(data: bytes) -> Erasure:
    fields = strict_json(_header_text(data[8 : 8 + _header_length(data)]), "the header")
    stated = fields.pop("sha256", None) if isinstance(fields, dict) else None
    header = Header.from_json(fields)
    try:
        tensors = safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise BadArtifact(f"this is not a sound safetensors file: {error}") from error
    erasure = Erasure(header, tensors)
    if erasure.digest != stated:
        raise BadArtifact("header field 'sha256' does not fit the content: the file was damaged or changed")
    return erasure


def _reason(error: Exception) -> str:
    text = str(getattr(error, "strerror", None) or error)
    return text if len(text) <= LONGEST_REASON else f"{text[:LONGEST_REASON]}..."
