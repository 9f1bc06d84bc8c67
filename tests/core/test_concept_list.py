"""A table of concepts says what a list of Concept objects would, and a bad line is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from efface import BadConcept, Concept, read_concepts


def table(folder: Path, text: str) -> Path:
    file = folder / "concepts.csv"
    file.write_text(text, encoding="utf-8")
    return file


def test_each_row_is_a_concept(tmp_path: Path) -> None:
    text = "concept,anchor,synonyms,kind\ncat,dog,kitten; feline,object\n"
    text += '"Gogh, van",,,style\n skull ,,,\n'
    assert read_concepts(table(tmp_path, text)) == (
        Concept("cat", "dog", ("kitten", "feline")),
        Concept("Gogh, van", kind="style"),
        Concept("skull"),
    )


def test_columns_may_be_in_any_order_or_missing(tmp_path: Path) -> None:
    assert read_concepts(table(tmp_path, "anchor,concept\ndog,cat\n")) == (Concept("cat", "dog"),)
    assert read_concepts(table(tmp_path, "concept\ncat\n")) == (Concept("cat"),)


def test_rows_without_a_text_are_passed_over(tmp_path: Path) -> None:
    text = "concept,anchor\ncat,dog\n,\n , ,,\n\nfish,\n"
    assert read_concepts(table(tmp_path, text)) == (Concept("cat", "dog"), Concept("fish"))


def test_a_spreadsheets_mark_at_the_start_is_no_part_of_a_name(tmp_path: Path) -> None:
    assert read_concepts(table(tmp_path, "\ufeffconcept\ncat\n")) == (Concept("cat"),)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("concept,ancor\ncat,dog\n", r"No column 'ancor'; there are: .*Did you mean 'anchor'\?"),
        ("anchor\ndog\n", "must name a column 'concept'"),
        ("", "must name a column 'concept'"),
        ("concept\n", "has no concepts"),
        ("concept,anchor\ncat,dog\n,fish\n", "line 3: A concept must not be empty"),
        ("concept,anchor\ncat,cat\n", "line 2: Concept 'cat' has itself as anchor"),
        ("concept,kind\ncat,animal\n", "line 2: Concept 'cat' has no kind 'animal'; kinds: object"),
        ("concept\ncat\ndog\nCat\n", "line 4: 'Cat' is erased by line 2 already"),
        ("concept,synonyms\ncat,kitten\nkitten,\n", "line 3: 'kitten' is erased by line 2 already"),
        ("concept,anchor,anchor\ncat,dog,fish\n", r"\.csv: its first line names the column 'anchor' twice"),
        ("concept;anchor\ncat;dog\n", r"commas separate columns, not semicolons or tabs: 'concept;anchor'"),
        ("concept\tanchor\ncat\tdog\n", "commas separate columns, not semicolons or tabs"),
        ("concept,anchor\ncat,dog\n,,fish\n", "line 3: there are more cells than columns"),
        ("concept,anchor\n,\n", "has no concepts"),
        ("concept\ncat,dog\n", "line 2: there are more cells than columns"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(BadConcept, match=told):
        read_concepts(table(tmp_path, text))


def test_a_file_that_is_not_there_or_no_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadConcept, match=r"Cannot read concepts from .*none\.csv"):
        read_concepts(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadConcept, match=r"Cannot read concepts from .*binary\.csv"):
        read_concepts(tmp_path / "binary.csv")
