"""Columns of TSV files by entity: texts and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mocme.data.features.numeric import ColumnBuilder, Columns, finite_number
from mocme.data.formats import tsv
from mocme.data.graph import Vocabulary


def read_texts(
    path: Path, column: int, entities: Vocabulary
) -> tuple[dict[int, str], list[str], str]:
    """Texts by entity id, notes on names and lines left out, and the file's digest.

    Several texts of an entity become one, a line each; an empty text is none.
    """
    table = tsv.read(path, None)
    if table.rows and len(table.rows[0]) < column:
        raise ValueError(f"{path}: has {len(table.rows[0])} columns; column {column} is asked for")
    texts: dict[int, str] = {}
    strange: list[str] = []
    for row in table.rows:
        entity = entities.get(row[0])
        if entity is None:
            strange.append(row[0])
        elif text := row[column - 1]:
            texts[entity] = f"{texts[entity]}\n{text}" if entity in texts else text
    return texts, [str(table.report), *unknown(path, strange)], table.report.sha256


def check_columns(paths: Sequence[str], columns: Sequence[int], what: str) -> tuple[int, ...]:
    """The text's column of each file, where one may stand for all.

    Args:
        what: the names of both settings, for instance ``"paths columns"``.

    Raises:
        ValueError: no list of files, or columns that do not fit it.
    """
    named, numbered = what.split()
    if not paths or isinstance(paths, str):
        raise ValueError(f"{named} is a list of files, at least one")
    if len(columns) not in (1, len(paths)) or min(columns) < 2:
        raise ValueError(
            f"{numbered} gives the text's column (2 or more), one or one a path of {named}"
        )
    return tuple(columns) * (len(paths) if len(columns) == 1 else 1)


def gather(
    folder: Path, paths: Sequence[str], columns: Sequence[int], entities: Vocabulary
) -> tuple[dict[int, list[str]], list[str], list[str]]:
    """Texts of several files by entity, in the order of the files; notes; digests of the files.

    Raises:
        ValueError: a file cannot be read or lacks its column, named with the remedy.
    """
    texts: dict[int, list[str]] = {}
    notes: list[str] = []
    digests: list[str] = []
    for name, column in zip(paths, columns, strict=True):
        found, said, digest = read_texts(folder / name, column, entities)
        for entity, text in found.items():
            texts.setdefault(entity, []).extend(text.split("\n"))
        notes += said
        digests.append(digest)
    return texts, notes, digests


def read_numbers(path: Path, entities: Vocabulary) -> tuple[Columns, list[str]]:
    """Numbers by attribute and entity; the last of several values of one attribute counts."""
    table = tsv.read(path, None)
    width = len(table.rows[0]) if table.rows else 3
    if width not in (2, 3):
        raise ValueError(f"{path}: {width} columns; (entity, value) or (entity, attribute, value)")
    builder = ColumnBuilder()
    strange: list[str] = []
    for row, line in zip(table.rows, table.lines, strict=True):
        number = finite_number(row[-1])
        if number is None:
            raise ValueError(
                f"{path}: line {line}: {row[-1]!r} is not a finite number; remove the line where "
                f"the value is missing"
            )
        entity = entities.get(row[0])
        if entity is None:
            strange.append(row[0])
            continue
        builder.add(row[1] if width == 3 else "value", entity, number)
    columns, repeated = builder.columns()
    if not columns:
        raise ValueError(f"{path}: no number belongs to an entity of the graph")
    notes = [str(table.report), *unknown(path, strange)]
    if repeated:
        notes.append(f"{path}: {repeated} entities have an attribute twice; the last value counts")
    return columns, notes


def unknown(path: Path, names: Sequence[str]) -> list[str]:
    """A note on rows that name no entity, where there are any."""
    if not names:
        return []
    return [f"{path}: {len(names):,} rows name no entity of the graph, the first {names[0]!r}"]
