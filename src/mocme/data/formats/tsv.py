"""Tab-separated text, byte for byte: no quoting, no escapes, no header, no type guessing.

A line ends with LF or CRLF. Every line is counted: as a row, a blank line, a comment, or a reject
with its number and reason. A comment is a line that starts with ``#`` and does not have the number
of columns of a row (so a name may start with ``#``).
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path

import numpy as np

from mocme.data.formats.coded import split_columns
from mocme.data.formats.report import Block, Report
from mocme.data.formats.streams import (
    CHUNK,
    LINE_FEED,
    TAB,
    line_chunks,
    normalize_line_ends,
    open_stream,
)
from mocme.data.names import name_problem, refused

# Bytes of a chunk with a defect that are read line by line at a time.
PART = 1 << 20


@dataclass(frozen=True)
class Table:
    """Rows of a file as tuples of names, their line numbers, and the report on the file."""

    rows: list[tuple[str, ...]]
    lines: list[int]
    report: Report


def read(path: str | Path, columns: int | None) -> Table:
    """Read a whole file of `columns` non-empty columns.

    If `columns` is None, the first row determines the number (a line of one column that starts
    with ``#`` is not a row), and later rows with another number are rejects; columns after the
    first may then be empty.

    Raises:
        ValueError: the file is absent or cannot be read.
    """
    report = Report(str(path))
    with open_stream(path, report) as file:
        return _table(blocks(file, columns, report), report)


def parse(data: bytes, columns: int | None, path: str) -> Table:
    """Read the bytes of a file as `read` does; `path` is only for the report."""
    report = Report(path, sha256=hashlib.sha256(data).hexdigest())
    return _table(blocks(io.BytesIO(data), columns, report), report)


def blocks(
    file: BufferedIOBase, columns: int | None, report: Report, size: int = CHUNK
) -> Iterator[Block]:
    """Rows of an open file, block by block.

    Args:
        columns: as for `read`.
        size: bytes per block. Names repeat more often within a larger block, which
            `coded.split_columns` makes use of.
    """
    all_filled = columns is not None
    for data in line_chunks(file, report, size):
        data = normalize_line_ends(data)
        first = report.lines + 1
        if columns is None:
            columns = _width(data)
        block = None if columns is None else _all_rows(data, columns, all_filled, first)
        if block is not None:
            report.lines += len(block.lines)
            report.rows += len(block.lines)
            if block.lines:
                yield block
            continue
        for part in _parts(data):
            # Without a row so far, the number of columns is unknown and no line is a row.
            block = _line_by_line(part, columns or 0, all_filled, report.lines + 1, report)
            report.rows += len(block.lines)
            if block.lines:
                yield block


def read_names(path: str | Path) -> Table:
    """Read a list of names, in which the number of a line is an id: every line must be a name.

    Raises:
        ValueError: a line is blank, a comment, a reject or a repetition, which would shift the ids
            or make them ambiguous; or a name is refused (`mocme.data.names`).
    """
    table = read(path, 1)
    if table.report.rejects:
        raise ValueError(
            f"a list of names has one name in every line; correct these\n{table.report}"
        )
    bad = refused([name for (name,) in table.rows], breaks=False)
    first: dict[str, int] = {}
    for expected, ((name,), line) in enumerate(zip(table.rows, table.lines, strict=True), 1):
        if line != expected:
            raise ValueError(
                f"{path}: line {expected}: blank or a comment, but the number of a line is an id "
                f"here; remove the line"
            )
        if name in bad:
            raise ValueError(f"{path}: line {line}: {name_problem(name, breaks=False)}")
        if name in first:
            raise ValueError(
                f"{path}: line {line}: {name!r} is already in line {first[name]}; keep one"
            )
        first[name] = line
    return table


def _table(row_blocks: Iterator[Block], report: Report) -> Table:
    rows: list[tuple[str, ...]] = []
    lines: list[int] = []
    for block in row_blocks:
        rows.extend(zip(*block.columns, strict=True))
        lines.extend(block.lines)
    return Table(rows, lines, report)


def _width(data: bytes) -> int | None:
    """The number of columns of the first row, or None if there is no row."""
    for raw in data.split(b"\n"):
        width = raw.count(b"\t") + 1
        if not raw or (width == 1 and raw.startswith(b"#")):
            continue
        try:
            raw.decode()
        except UnicodeDecodeError:
            continue
        return width
    return None


def _all_rows(data: bytes, columns: int, all_filled: bool, first: int) -> Block | None:
    """Every line as a row, by operations on the whole text; None if some line is not a row."""
    # With tabs for line feeds, cell i ends at ends[i]. The lines are rows if exactly every
    # `columns`-th of these ends was a line feed.
    cells = data.replace(b"\n", b"\t")
    ends = np.flatnonzero(np.frombuffer(cells, np.uint8) == TAB)
    if len(ends) % columns:
        return None
    is_line_end = np.frombuffer(data, np.uint8)[ends].reshape(-1, columns) == LINE_FEED
    if not is_line_end[:, -1].all() or is_line_end[:, :-1].any():
        return None
    filled = (np.diff(ends, prepend=-1) > 1).reshape(-1, columns)
    if not (filled.all() if all_filled else filled[:, 0].all()):
        return None
    try:
        rows = split_columns(cells, ends, columns)
    except UnicodeDecodeError:
        return None
    return Block(rows, range(first, first + len(is_line_end)))


def _parts(data: bytes) -> Iterator[bytes]:
    """Whole lines in parts of about `PART` bytes: a line as an object takes far more memory."""
    start = 0
    while start < len(data):
        end = data.rfind(b"\n", start, start + PART) + 1 or data.index(b"\n", start) + 1
        yield data[start:end]
        start = end


def _line_by_line(data: bytes, columns: int, all_filled: bool, first: int, report: Report) -> Block:
    """The rows among some lines; every other line is counted in the report."""
    rows: list[list[str]] = []
    numbers: list[int] = []
    lines = data.split(b"\n")
    lines.pop()
    report.lines += len(lines)
    for number, raw in enumerate(lines, first):
        if not raw:
            report.blank += 1
            continue
        if raw.startswith(b"#") and raw.count(b"\t") + 1 != columns:
            report.comments += 1
            continue
        try:
            row = raw.decode().split("\t")
        except UnicodeDecodeError:
            report.reject(number, "not valid UTF-8", raw)
            continue
        if len(row) != columns:
            reason = f"{len(row)} columns where {columns} are expected"
            report.reject(number, reason, raw)
        elif not row[0] or (all_filled and not all(row)):
            report.reject(number, "an empty name", raw)
        else:
            rows.append(row)
            numbers.append(number)
    return Block(tuple(map(list, zip(*rows, strict=True))) or ([],) * columns, numbers)
