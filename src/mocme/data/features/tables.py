"""Read texts and numbers by entity from TSV files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mocme.core.text import counted
from mocme.data.features.numeric import ColumnBuilder, Columns
from mocme.data.formats import tsv
from mocme.data.graph import Vocabulary
from mocme.data.modality import EmptyModality
from mocme.data.numbers import finite_number, number_problem

_REMEDY = (
    "remove the line if the value is missing, else write the number with digits and a decimal "
    "point, without separators of thousands"
)


def read_texts(
    path: Path, column: int, entities: Vocabulary
) -> tuple[dict[int, str], list[str], str]:
    """Read one column of texts; column 1 names the entity.

    Several texts of an entity become one, one line each; empty texts are left out.

    Returns:
        Texts by entity id; notes on the rows, and on those that name no entity; the SHA-256 of the
        file.

    Raises:
        ValueError: the file cannot be read, or has no such column.
    """
    table = tsv.read(path, None)
    if table.rows and len(table.rows[0]) < column:
        raise ValueError(
            f"{path}: has {len(table.rows[0])} columns, so there is no column {column}"
        )
    texts: dict[int, str] = {}
    unknown: list[str] = []
    for row in table.rows:
        entity = entities.get(row[0])
        if entity is None:
            unknown.append(row[0])
        elif text := row[column - 1]:
            texts[entity] = f"{texts[entity]}\n{text}" if entity in texts else text
    return texts, [str(table.report), *unknown_note(path, unknown)], table.report.sha256


def column_per_file(
    paths: Sequence[str],
    columns: Sequence[int],
    *,
    paths_setting: str = "paths",
    columns_setting: str = "columns",
) -> tuple[int, ...]:
    """Return the text column of each file; a single column applies to all files.

    Raises:
        ValueError: there is no list of files, or the columns do not fit it.
    """
    if not paths or isinstance(paths, str):
        raise ValueError(f"{paths_setting} must be a list of at least one file")
    if len(columns) not in (1, len(paths)) or min(columns) < 2:
        raise ValueError(
            f"{columns_setting} must give the text column (2 or more), one for all files or one "
            f"per file of {paths_setting}"
        )
    return tuple(columns) * (len(paths) if len(columns) == 1 else 1)


def gather_texts(
    folder: Path, paths: Sequence[str], columns: Sequence[int], entities: Vocabulary
) -> tuple[dict[int, list[str]], list[str], list[str]]:
    """Read the texts of several files.

    Args:
        folder: where relative paths start.
        columns: the text column of each file.

    Returns:
        Texts by entity id, in the order of the files; notes; the SHA-256 of each file.

    Raises:
        ValueError: a file cannot be read or has no such column; the message names it.
    """
    texts: dict[int, list[str]] = {}
    notes: list[str] = []
    digests: list[str] = []
    for name, column in zip(paths, columns, strict=True):
        file_texts, file_notes, digest = read_texts(folder / name, column, entities)
        for entity, text in file_texts.items():
            texts.setdefault(entity, []).extend(text.split("\n"))
        notes += file_notes
        digests.append(digest)
    return texts, notes, digests


def read_numbers(path: Path, entities: Vocabulary) -> tuple[Columns, list[str]]:
    """Read (entity, value) or (entity, attribute, value) rows.

    Of several values for an attribute of an entity, the last one counts. A value that is not a
    finite number (see `finite_number`) is a reject.

    Returns:
        Numbers by attribute; notes on the rows, on rejects, and on those that name no entity.

    Raises:
        ValueError: the file cannot be read, or has another number of columns.
        EmptyModality: no finite number belongs to an entity of the graph.
    """
    table = tsv.read(path, None)
    width = len(table.rows[0]) if table.rows else 3
    if width not in (2, 3):
        raise ValueError(
            f"{path}: has {width} columns; needs (entity, value) or (entity, attribute, value)"
        )
    builder = ColumnBuilder()
    unknown: list[str] = []
    first, rejected = "", 0
    for row, line in zip(table.rows, table.lines, strict=True):
        number = finite_number(row[-1])
        if number is None:
            problem = number_problem(row[-1])
            first = first or f"line {line}: {problem}"
            table.report.rows -= 1
            table.report.reject(line, problem, "\t".join(row))
            rejected += 1
            continue
        entity = entities.get(row[0])
        if entity is None:
            unknown.append(row[0])
            continue
        builder.add(row[1] if width == 3 else "value", entity, number)
    columns, repeated = builder.columns()
    if not columns:
        reasons = [f"{first}; {_REMEDY}"] if first else []
        if unknown:
            rows = counted(len(unknown), "row")
            reasons.append(f"{rows} with a name of no entity; check the names")
        why = "; ".join(reasons) or "the file has no rows"
        raise EmptyModality(f"{path}: no number belongs to an entity of the graph ({why})")
    notes = [str(table.report), *unknown_note(path, unknown)]
    if rejected:
        values = counted(rejected, "value is", "values are")
        notes.append(f"{path}: {values} not used, first {first}; {_REMEDY}")
    if repeated:
        notes.append(
            f"{path}: {counted(repeated, 'value repeats', 'values repeat')} an attribute of an "
            f"entity; the last value counts"
        )
    return columns, notes


def unknown_note(path: Path, names: Sequence[str]) -> list[str]:
    """Return a note on rows whose names are not entities of the graph, if there are any."""
    if not names:
        return []
    rows = counted(len(names), "row names", "rows name")
    return [f"{path}: {rows} no entity of the graph, the first {names[0]!r}"]
