"""Tab-separated text, byte for byte: no quoting, no escapes, no header, no type guessing.

A line ends with LF or CRLF. Every line is accounted for: a row, a blank line, a comment, or a
reject with its number and reason. A comment is a line that starts with ``#`` and does not have the
number of columns of a row (so that a name may start with ``#``).
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path

import numpy as np

from mocme.data.formats.coded import ARROW, cut
from mocme.data.formats.report import Block, Report
from mocme.data.formats.streams import CHUNK, chunks, opened, plain_lines

TAB, LINE_FEED = 9, 10
# Bytes of facts that are read at a time: the more, the oftener a name repeats among them.
LARGE = 1 << 24 if ARROW else CHUNK


@dataclass(frozen=True)
class Table:
    """Rows of a file as tuples of names, their line numbers, and the account of the file."""

    rows: list[tuple[str, ...]]
    lines: list[int]
    report: Report


def facts(path: str | Path, report: Report) -> Iterator[Block]:
    """Facts of a file, block by block; a row is head, relation, tail.

    Raises:
        ValueError: the file is absent or cannot be read, named with the remedy.
    """
    with opened(path, report) as file:
        yield from blocks(file, 3, report, LARGE)


def read(path: str | Path, columns: int | None) -> Table:
    """Read a whole file of `columns` non-empty columns.

    With `columns` None the first row decides (a line of one column that starts with ``#`` is no
    row), and every later row must agree; then columns after the first may be empty.

    Raises:
        ValueError: the file is absent or cannot be read, named with the remedy.
    """
    report = Report(str(path))
    with opened(path, report) as file:
        return _table(blocks(file, columns, report), report)


def parse(data: bytes, columns: int | None, path: str) -> Table:
    """Read the bytes of a file as `read` does; `path` is for its report only."""
    report = Report(path, sha256=hashlib.sha256(data).hexdigest())
    return _table(blocks(io.BytesIO(data), columns, report), report)


def blocks(
    file: BufferedIOBase, columns: int | None, report: Report, size: int = CHUNK
) -> Iterator[Block]:
    """Rows of an open file, block by block; see `read` for `columns`, `coded.cut` for `size`."""
    strict = columns is not None
    for data in chunks(file, report, size):
        data = plain_lines(data)
        first = report.lines + 1
        if columns is None:
            columns = _width(data)
        block = None if columns is None else _all_rows(data, columns, strict, first)
        if block is not None:
            report.lines += len(block.lines)
        else:
            # Before the first row tells how many columns there are, no line is a row.
            block = _line_by_line(data, columns or 0, strict, first, report)
        report.rows += len(block.lines)
        if block.lines:
            yield block


def read_names(path: str | Path) -> Table:
    """Read a list of names, in which the number of a line is an id: every line must be a name.

    Raises:
        ValueError: a line is blank, a comment, a reject or a repetition, which would shift or blur
            the ids, with its number.
    """
    table = read(path, 1)
    if table.report.rejects:
        raise ValueError(
            f"a list of names has one name in every line; correct these\n{table.report}"
        )
    first: dict[str, int] = {}
    for place, ((name,), line) in enumerate(zip(table.rows, table.lines, strict=True), 1):
        if line != place:
            raise ValueError(
                f"{path}: line {place}: blank or a comment, but the number of a line is an id "
                f"here; remove the line"
            )
        if name in first:
            raise ValueError(
                f"{path}: line {line}: {name!r} stands already in line {first[name]}; keep one"
            )
        first[name] = line
    return table


def _table(found: Iterator[Block], report: Report) -> Table:
    rows: list[tuple[str, ...]] = []
    lines: list[int] = []
    for block in found:
        rows.extend(zip(*block.columns, strict=True))
        lines.extend(block.lines)
    return Table(rows, lines, report)


def _width(data: bytes) -> int | None:
    """How many columns the first row has; None where there is no row."""
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


def _all_rows(data: bytes, columns: int, strict: bool, first: int) -> Block | None:
    """Every line as a row, without looking at one by one; None where not every line is one."""
    cells = data.replace(b"\n", b"\t")
    ends = np.flatnonzero(np.frombuffer(cells, np.uint8) == TAB)
    if len(ends) % columns:
        return None
    is_end = np.frombuffer(data, np.uint8)[ends].reshape(-1, columns) == LINE_FEED
    if not is_end[:, -1].all() or is_end[:, :-1].any():
        return None
    filled = (np.diff(ends, prepend=-1) > 1).reshape(-1, columns)
    if not (filled.all() if strict else filled[:, 0].all()):
        return None
    try:
        rows = cut(cells, ends, columns)
    except UnicodeDecodeError:
        return None
    return Block(rows, range(first, first + len(is_end)))


def _line_by_line(data: bytes, columns: int, strict: bool, first: int, report: Report) -> Block:
    """The rows among some lines; every other line goes into the report."""
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
        elif not row[0] or (strict and not all(row)):
            report.reject(number, "an empty name", raw)
        else:
            rows.append(row)
            numbers.append(number)
    return Block(tuple(map(list, zip(*rows, strict=True))) or ([],) * columns, numbers)
