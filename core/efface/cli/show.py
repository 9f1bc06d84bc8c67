"""`efface show`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from efface.cli.console import Console
from efface.cli.options import command, json_option, pass_console
from efface.cli.wording import becomes, counted, origin, size
from efface_hooks.errors import listed

if TYPE_CHECKING:
    from efface.erasure import Erasure

LONGEST_VALUE = 200


@command("efface show uce-cat.safetensors", "efface show uce-cat.safetensors --json")
@click.argument("file")
@json_option
@pass_console
def show(console: Console, file: str) -> None:
    """Say what an erasure's FILE holds."""
    from efface.erasure import Erasure

    erasure = Erasure.load(file)
    rows = [("file", f"{file}, {size(Path(file).stat().st_size)}"), *_rows(erasure)]
    console.answer(erasure.to_dict(), [f"{name:<10} {text}" for name, text in rows])


def _rows(erasure: Erasure) -> Iterator[tuple[str, str]]:
    header = erasure.header
    yield "method", f"{header.method} {origin(header.distribution, header.version)}"
    for concept in erasure.concepts:
        yield concept.kind, becomes(concept, header.report.get("neutral anchor") or ())
    yield "keep", "; ".join(header.request.keep) or "-"
    yield "templates", "; ".join(header.request.templates)
    yield "settings", " ".join(f"{name}={json.dumps(value)}" for name, value in header.settings.items()) or "-"
    yield "base", _base(header.base)
    yield "points", f"{counted(len(header.points), 'point')}: {listed(header.points)}"
    yield "seed", str(header.seed)
    yield "libraries", ", ".join(f"{name} {version}" for name, version in header.libraries.items())
    for name, spec in header.tensors.items():
        yield "tensor", f"{name} {spec.dtype} {'x'.join(map(str, spec.shape)) or 'scalar'}"
    for name, value in _leaves(header.report):
        yield "report", f"{name}: {value}"
    yield "sha256", erasure.digest


def _base(base: Mapping[str, Any]) -> str:
    weights, structure = base.get("weights"), str(base.get("structure", ""))
    count = len(weights) if isinstance(weights, Mapping) else 0
    return f"{base.get('pipeline')}, {base.get('dtype')}, {counted(count, 'tensor')} of structure {structure[:12]}"


def _leaves(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    """Nested objects as dotted names with their values, each short enough for a line."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}" if name else str(key))
        return
    text = json.dumps(value, ensure_ascii=False)
    yield name, text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."
