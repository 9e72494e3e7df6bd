"""Cells of any columns of a table, whatever its format."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from mocme.data.formats import delimited, jsonl, parquet, tsv
from mocme.data.formats.named import CellColumns
from mocme.data.formats.registry import TSV, ending
from mocme.data.formats.report import Block, Report
from mocme.data.formats.streams import opened


def cells(
    path: str | Path,
    report: Report,
    names: Sequence[str],
    delimiter: str | None = None,
    several: str | None = None,
) -> Iterator[Block]:
    """Cells as they stand, block by block, a list for each name; an empty one is an empty string.

    Args:
        names: of columns; in TSV, which has no header, their numbers from 1.
        delimiter: reads the file as CSV with this delimiter, whatever its ending.
        several: the column whose cells may be lists, where the format has such (JSON lines).

    Raises:
        ValueError: the file cannot be read, is no table, or has no such columns.
    """
    wanted, known = CellColumns(tuple(names), several), ending(path)
    if delimiter is not None or known == ".csv":
        yield from delimited.facts(path, report, wanted, delimiter or ",")
    elif known in (".jsonl", ".ndjson"):
        yield from jsonl.facts(path, report, wanted)
    elif known == ".parquet":
        yield from parquet.facts(path, report, wanted)
    elif known in TSV:
        yield from _numbered(path, report, names)
    else:
        raise ValueError(
            f"{path}: is no table; known are .csv, .tsv, .jsonl and .parquet (or say delimiter)"
        )


def _numbered(path: str | Path, report: Report, names: Sequence[str]) -> Iterator[Block]:
    numbers = [int(name) if name.isdecimal() else 0 for name in names]
    if min(numbers) < 1:
        raise ValueError(
            f"{path}: columns of TSV are named by their numbers from 1, not {list(names)}; if the "
            f'file has a header, say delimiter = "\\t"'
        )
    with opened(path, report) as file:
        for block in tsv.blocks(file, None, report):
            if max(numbers) > len(block.columns):
                raise ValueError(
                    f"{path}: has {len(block.columns)} columns; column {max(numbers)} is asked for"
                )
            yield Block(tuple(block.columns[number - 1] for number in numbers), block.lines)


def numbered(path: str | Path, delimiter: str | None = None) -> bool:
    """Whether the columns of a table are named by their numbers."""
    return delimiter is None and ending(path) in TSV
