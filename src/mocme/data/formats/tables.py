"""Cells of any columns of a table, in every format that is a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from mocme.data.formats.columns import CellColumns
from mocme.data.formats.kinds import delimited
from mocme.data.formats.registry import FORMATS, find_format
from mocme.data.formats.report import Block, Report


def cells(
    path: str | Path,
    report: Report,
    names: Sequence[str],
    delimiter: str | None = None,
    several: str | None = None,
) -> Iterator[Block]:
    """Cells as written, block by block, one list per name; an empty cell is an empty string.

    Args:
        names: of columns; in TSV, which has no header, their numbers from 1.
        delimiter: reads the file as CSV with this delimiter, whatever its ending.
        several: the column whose cells may be lists, in formats that have them (JSON lines).

    Raises:
        ValueError: the file cannot be read, is not a table, or lacks the columns.
    """
    columns = CellColumns(tuple(names), several)
    if delimiter is not None:
        yield from delimited.facts(path, report, columns, delimiter or ",")
        return
    known = find_format(path)
    if known is None or known.cells is None:
        endings = ", ".join(ending for table in FORMATS if table.cells for ending in table.endings)
        raise ValueError(f"{path}: is not a table; known are {endings} (or set delimiter)")
    yield from known.cells(path, report, columns)


def numbered(path: str | Path, delimiter: str | None = None) -> bool:
    """Whether the columns of a table are named by their numbers."""
    known = find_format(path)
    return delimiter is None and known is not None and known.numbered
