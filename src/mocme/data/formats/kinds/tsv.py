"""TSV (`mocme.data.formats.tsv`): head, tab, relation, tab, tail in each line, without a header."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mocme.data.formats import streams
from mocme.data.formats.base import Format
from mocme.data.formats.coded import HAS_ARROW
from mocme.data.formats.columns import CellColumns, FactColumns
from mocme.data.formats.report import Block, Report
from mocme.data.formats.streams import open_stream
from mocme.data.formats.tsv import blocks
from mocme.data.formats.writers import Row, atomic_file, batches, name_error

# Bytes that are read at a time. Names repeat more often within a larger block.
CHUNK = 1 << 24 if HAS_ARROW else streams.CHUNK


def facts(path: str | Path, report: Report, columns: FactColumns | None = None) -> Iterator[Block]:
    """Facts of a file, block by block.

    Raises:
        ValueError: `columns` are given; the file is absent or cannot be read.
    """
    if columns is not None:
        raise ValueError(
            f"{path}: columns of TSV have no names; leave them out, or, if the file has a header, "
            f"convert it to CSV"
        )
    return _facts(path, report)


def _facts(path: str | Path, report: Report) -> Iterator[Block]:
    with open_stream(path, report) as file:
        yield from blocks(file, 3, report, CHUNK)


def cells(path: str | Path, report: Report, columns: CellColumns) -> Iterator[Block]:
    """Cells of the columns with the given numbers, from 1.

    Raises:
        ValueError: a name is not a number, or the file has fewer columns or cannot be read.
    """
    # int would take the digits of every script.
    is_number = re.compile("[0-9]{1,9}").fullmatch
    numbers = [int(name) if is_number(name) else 0 for name in columns.names]
    if min(numbers) < 1:
        raise ValueError(
            f"{path}: columns of TSV are named by their numbers from 1, not {list(columns.names)}; "
            f'if the file has a header, set delimiter = "\\t"'
        )
    with open_stream(path, report) as file:
        for block in blocks(file, None, report):
            if max(numbers) > len(block.columns):
                raise ValueError(
                    f"{path}: has {len(block.columns)} columns, but column {max(numbers)} is "
                    f"needed; correct the number"
                )
            yield Block(tuple(block.columns[number - 1] for number in numbers), block.lines)


def write(path: str | Path, rows: Iterable[Row]) -> None:
    """Write rows as TSV.

    Raises:
        ValueError: a name contains a tab or a line feed, a tail ends with a carriage return, or
            the file would start with a byte order mark; see also `writers.batches` and
            `writers.written`.
    """
    remedy = "write CSV, JSON lines or Parquet, which hold it, or rename it"
    with atomic_file(path) as file:
        is_first = True
        for batch in batches(rows, path):
            if is_first and batch[0][0].startswith("\ufeff"):
                problem = "a byte order mark where the file starts, which TSV cannot"
                raise name_error(path, batch[0][0], problem, remedy)
            is_first = False
            text = "".join([f"{head}\t{relation}\t{tail}\n" for head, relation, tail in batch])
            # Counting in the joined text is faster than checking each name.
            expected = (2 * len(batch), len(batch), 0)
            if (text.count("\t"), text.count("\n"), text.count("\r\n")) != expected:
                raise name_error(path, *_first_misfit(batch), remedy)
            file.write(text.encode())


def _first_misfit(batch: Sequence[Row]) -> tuple[str, str]:
    """The first name that TSV cannot hold, and why."""
    for row in batch:
        for name in row:
            if "\t" in name or "\n" in name:
                return name, f"a {'tab' if chr(9) in name else 'line feed'}, which TSV cannot"
        if row[2].endswith("\r"):
            return row[2], "a carriage return at the end of a line, which TSV cannot"
    raise AssertionError("every name fits")


def diagnose(path: Path, report: Report) -> str:
    """What a file without a single row of TSV seems to be instead, with the remedy."""
    text = report.rejects[0].text
    separator = next((s for s in (",", ";", "|", " ") if text.count(s) == 2), None)
    if separator is not None and "\t" not in text:
        return f"its columns seem to be separated by {separator!r}; separate them by tabs"
    return "a line is HEAD, tab, RELATION, tab, TAIL in UTF-8, and nothing else"


FORMAT = Format(
    name="TSV",
    endings=(".tsv", ".txt"),
    facts=facts,
    write=write,
    cells=cells,
    numbered=True,
    diagnose=diagnose,
)
