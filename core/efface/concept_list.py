"""Concepts from a table: one row each."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from efface.concept import Concept, Request, same
from efface.errors import BadConcept, unknown

COLUMNS = {"concept": "text", "anchor": "anchor", "synonyms": "synonyms", "kind": "kind"}


def read_concepts(file: str | os.PathLike[str]) -> tuple[Concept, ...]:
    """The concepts of a CSV file with the columns concept, anchor, synonyms (with ; between them) and kind.

    All but the first may be left out, and cells may be empty: they mean what a `Concept`'s defaults mean. Rows without
    any text are passed over. BadConcept names the line.
    """
    path = Path(file)
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            found = tuple(_rows(path, csv.DictReader(stream, strict=True)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadConcept(f"Cannot read concepts from {path}: {error}") from error
    if not found:
        raise BadConcept(f"{path} has no concepts: its first line names the columns, each other line is a concept")
    return found


def _rows(path: Path, reader: csv.DictReader[str]) -> Iterator[Concept]:
    """Concepts in the order of the file; one that is there already, or that another one has, is refused by its line."""
    _check_columns(path, reader.fieldnames or ())
    seen: dict[str, int] = {}
    for row in reader:
        if not any(map(_filled, row.values())):
            continue
        try:
            concept = _concept(row)
            Request((concept,))
        except BadConcept as error:
            raise BadConcept(f"{path}, line {reader.line_num}: {error}") from error
        for phrase in concept.phrases:
            first = seen.setdefault(same(phrase), reader.line_num)
            if first != reader.line_num:
                raise BadConcept(f"{path}, line {reader.line_num}: {phrase!r} is erased by line {first} already")
        yield concept


def _check_columns(path: Path, names: Sequence[str]) -> None:
    for name in names:
        if ";" in name or "\t" in name:
            raise BadConcept(f"{path}: commas separate columns, not semicolons or tabs: {name!r} would be one column")
        if name not in COLUMNS:
            raise BadConcept(f"{path}: {unknown('column', name, COLUMNS, 'there are')}")
        if names.count(name) > 1:
            raise BadConcept(f"{path}: its first line names the column {name!r} twice")
    if "concept" not in names:
        raise BadConcept(f"{path}: the first line must name a column 'concept'; there may be {', '.join(COLUMNS)}")


def _filled(cells: Any) -> bool:
    """Whether there is a text in a cell, or in one of the cells that have no column."""
    return any(map(_filled, cells)) if isinstance(cells, list) else bool((cells or "").strip())


def _concept(row: dict[str, Any]) -> Concept:
    if None in row:
        raise BadConcept("there are more cells than columns; a text with a comma goes in quotes")
    cells = {COLUMNS[name]: (cell or "").strip() for name, cell in row.items()}
    synonyms = [one.strip() for one in cells.pop("synonyms", "").split(";")]
    text = cells.pop("text")
    given: dict[str, Any] = {name: cell for name, cell in cells.items() if cell}
    return Concept(text, synonyms=tuple(one for one in synonyms if one), **given)
