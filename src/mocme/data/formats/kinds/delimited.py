"""CSV with named columns (RFC 4180): cells exactly as written, nothing guessed or trimmed.

A header names the columns. A cell that contains the delimiter, a quote, a line feed or a carriage
return is quoted, and a quote within it is doubled. A row may therefore span several lines; its
number is that of the line in which it starts. It ends with LF or CRLF.

In the report, a line is a row with all its lines, and the header counts as a comment. A quote that
opens within a cell, closes before the end of its cell, or never closes is an error of the line in
which its row starts: that line is rejected, and reading resumes at the next one. A quote that is
still open after `LONGEST` bytes never closes, so what one costs has a limit.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import astuple
from io import BufferedIOBase
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt8

from mocme.core.csv_text import csv_text
from mocme.data.formats.base import Format
from mocme.data.formats.columns import CellColumns, Columns, FactColumns, column_indices
from mocme.data.formats.report import Block, Report
from mocme.data.formats.streams import line_chunks, open_stream
from mocme.data.formats.writers import Row, atomic_file, batches

DELIMITERS = ",;|\t"
QUOTE, LINE_FEED, RETURN = 34, 10, 13
# Candidates for a byte that no cell of a chunk contains; one of them replaces the ends of cells.
UNUSUAL = tuple(bytes([number]) for number in (31, 30, 29, 28, *range(1, 9), *range(14, 28)))
# Bytes that are parsed at a time, and bytes after which an open quote counts as unclosed.
CHUNK, LONGEST = 1 << 22, 1 << 24
# Records that are read one by one after a defect, before all others are tried at once again.
ROWS, MOST_ROWS = 1 << 10, 1 << 16
# Bytes that are parsed at once; more of them contain a row that is as long as several chunks.
AT_ONCE = 1 << 23
_BLANK = re.compile(rb"\n+|(?:\r\n)++")


def facts(
    path: str | Path, report: Report, columns: Columns = None, delimiter: str = ","
) -> Iterator[Block]:
    """Facts of a file, block by block. Other columns are not read.

    Args:
        columns: which columns are read; see `columns.column_indices` for the default.
        delimiter: one of ``,``, ``;``, ``|`` and tab.

    Raises:
        ValueError: the file cannot be read, or its header lacks the columns.
    """
    if len(delimiter) != 1 or delimiter not in DELIMITERS:
        raise ValueError(f"a delimiter is one of {', '.join(map(repr, DELIMITERS))}")
    with open_stream(path, report) as file:
        yield from _DelimitedReader(report, columns, delimiter).blocks(file)


def write(path: str | Path, rows: Iterable[Row]) -> None:
    """Write rows as CSV with the header ``head,relation,tail``. CSV holds every name.

    Raises:
        ValueError: see `writers.batches` and `writers.written`.
    """
    with atomic_file(path) as file:
        # The header goes out with the first batch, after its names were checked: standard output
        # gets nothing if they cannot be written.
        text = csv_text([astuple(FactColumns("head", "relation", "tail"))])
        for batch in batches(rows, path):
            file.write((text + csv_text(batch)).encode())
            text = ""
        file.write(text.encode())


class _Record(NamedTuple):
    """A row with all its lines: its cells, or what is wrong with its quotes."""

    raw: bytes
    cells: list[bytes]
    problem: str = ""


class _DelimitedReader:
    """Reads a file chunk by chunk; a row may continue in the next chunk.

    Most chunks have no defect. The positions of quotes, delimiters and line ends show that for all
    rows at once, and all cells are then split at once. Other chunks are read row by row.
    """

    def __init__(self, report: Report, columns: Columns, delimiter: str) -> None:
        self.report, self.columns, self.delimiter = report, columns, delimiter
        self.cell = re.compile(
            rb'"([^"]*(?:""[^"]*)*)"|([^"\r\n%b]*)' % re.escape(delimiter.encode())
        )
        # The number of the next line, cells per row (0 before the header), indices of read cells.
        self.line, self.width = 1, 0
        self.indices: tuple[int, ...] = (0, 1, 2)
        # Names are never empty; other cells may be.
        self.all_filled = not isinstance(columns, CellColumns)

    def blocks(self, file: BufferedIOBase) -> Iterator[Block]:
        """The rows of an open file."""
        pending = b""
        # The empty chunk marks the end of the file.
        for chunk in chain(line_chunks(file, self.report, CHUNK), [b""]):
            data = pending + chunk
            if not data.endswith(b"\n"):
                data += b"\n" if data else b""
            if not self.width:
                data = self._header(data, not chunk)
            pending = data
            if self.width:
                pending = yield from self._rows(data, not chunk)

    def _rows(self, data: bytes, final: bool) -> Generator[Block, None, bytes]:
        """The rows in some text, block by block; returns the text of a row that may continue."""
        count = ROWS
        while data:
            found = self._at_once(data) if len(data) <= AT_ONCE else None
            block, rest = found or self._one_by_one(data, final, count)
            self.report.rows += len(block.lines)
            if block.lines:
                yield block
            if len(rest) == len(data):
                break
            data = rest
            # Where defects follow each other, trying all rows at once is in vain ever more rarely.
            count = ROWS if found else min(2 * count, MOST_ROWS)
        return data

    def _header(self, data: bytes, final: bool) -> bytes:
        """Read the header if it is complete; return the data after it."""
        start = 0
        while start < len(data) and not self.width:
            record, end = self._record(data, start, final)
            if record is None:
                break
            where = f"{self.report.path}: line {self.line}"
            self.report.lines += 1
            if not record.raw:
                self.report.blank += 1
            elif record.problem:
                raise ValueError(f"{where}: the header has {record.problem}; correct it")
            else:
                self._choose_columns(record, where)
                self.report.comments += 1
            self.line += data.count(b"\n", start, end)
            start = end
        return data[start:]

    def _choose_columns(self, record: _Record, where: str) -> None:
        try:
            header = [cell.decode() for cell in record.cells]
        except UnicodeDecodeError as error:
            raise ValueError(f"{where}: the header is not UTF-8; save the file as UTF-8") from error
        other = next((d for d in DELIMITERS if d in header[0]), None)
        if len(header) == 1 and other is not None:
            raise ValueError(
                f"{where}: the header has one column, {header[0]!r}, which seems to be several "
                f"with {other!r} between them; set delimiter"
            )
        self.indices = column_indices(header, self.columns, where)
        self.width = len(header)

    def _at_once(self, data: bytes) -> tuple[Block, bytes] | None:
        """All complete rows, and the data after them; None if a row is blank or has a defect."""
        structure = _structure(np.frombuffer(data, np.uint8), ord(self.delimiter))
        if structure is None:
            return None
        cut, ends, last_lines = structure
        if len(ends) != self.width * len(last_lines):
            return None
        cells_data = np.frombuffer(data[:cut], np.uint8).copy()
        is_row_end = (cells_data[ends] == LINE_FEED).reshape(-1, self.width)
        unusual = next((sign for sign in UNUSUAL if sign not in data), None)
        if not is_row_end[:, -1].all() or is_row_end[:, :-1].any() or unusual is None:
            return None
        # The text is split at a byte that no cell contains: delimiters within quotes stay.
        cells_data[ends] = ord(unusual)
        try:
            text = cells_data.tobytes().decode()
        except UnicodeDecodeError:
            return None
        sign = unusual.decode()
        # A carriage return before a cell's end is part of a CRLF: outside quotes there is no other.
        cells = text.replace("\r" + sign, sign).split(sign)
        cells.pop()
        columns = tuple(cells[index :: self.width] for index in self.indices)
        if b'"' in data:
            columns = tuple(list(map(_unquoted, column)) for column in columns)
        if self.all_filled and not all(map(all, columns)):
            return None
        lines: Sequence[int] = range(self.line, self.line + len(last_lines))
        if last_lines[-1] != len(last_lines) - 1:
            lines = [self.line, *(last_lines[:-1] + (self.line + 1)).tolist()]
        self.report.lines += len(last_lines)
        self.line += int(last_lines[-1]) + 1
        return Block(columns, lines), data[cut:]

    def _one_by_one(self, data: bytes, final: bool, count: int) -> tuple[Block, bytes]:
        """The rows without a defect among the next ones; the others are counted in the report.

        Args:
            count: of rows to read.
        """
        rows: list[tuple[str, ...]] = []
        numbers: list[int] = []
        start = 0
        for _ in range(count):
            if start >= len(data):
                break
            if blank := _BLANK.match(data, start):
                lines = data.count(b"\n", start, blank.end())
                self.report.lines += lines
                self.report.blank += lines
                self.line += lines
                start = blank.end()
                continue
            record, end = self._record(data, start, final)
            if record is None:
                break
            self.report.lines += 1
            if problem := record.problem or self._misfit(record):
                self.report.reject(self.line, problem, record.raw)
            else:
                rows.append(tuple(record.cells[index].decode() for index in self.indices))
                numbers.append(self.line)
            self.line += data.count(b"\n", start, end)
            start = end
        columns = tuple(map(list, zip(*rows, strict=True))) or ([],) * len(self.indices)
        return Block(columns, numbers), data[start:]

    def _misfit(self, record: _Record) -> str:
        try:
            record.raw.decode()
        except UnicodeDecodeError:
            return "not valid UTF-8"
        if len(record.cells) != self.width:
            return f"{len(record.cells)} cells where the header has {self.width}"
        has_empty = self.all_filled and not all(record.cells[index] for index in self.indices)
        return "an empty name" if has_empty else ""

    def _record(self, data: bytes, start: int, final: bool) -> tuple[_Record | None, int]:
        """The row that starts at an offset, and the offset of the next one.

        None stands for a row that may continue in the next chunk.
        """
        line_end = data.index(b"\n", start) + 1
        end, quotes = line_end, data.count(b'"', start, line_end)
        # With an odd number of quotes so far, the line feed is within quotes. Lines without a quote
        # are passed over: there may be millions of them.
        while quotes % 2 and end - start <= LONGEST:
            quote = data.find(b'"', end, start + LONGEST)
            if quote < 0:
                break
            end = data.index(b"\n", quote) + 1
            quotes += data.count(b'"', quote, end)
        if quotes % 2:
            if not final and len(data) - start <= LONGEST:
                return None, start
            return _Record(data[start : line_end - 1], [], "a quote that never closes"), line_end
        record = self._split(data[start : end - 1].removesuffix(b"\r"))
        if record.problem:
            return _Record(data[start : line_end - 1], [], record.problem), line_end
        return record, end

    def _split(self, raw: bytes) -> _Record:
        cells = []
        position = -1
        while position < len(raw):
            match = self.cell.match(raw, position + 1)
            assert match is not None
            quoted, plain = match.groups()
            cells.append(plain if quoted is None else quoted.replace(b'""', b'"'))
            position = match.end()
            if position < len(raw) and raw[position] != ord(self.delimiter):
                is_return = raw[position] == RETURN
                what = "carriage return outside quotes" if is_return else "misplaced quote"
                return _Record(raw, [], f"a {what}")
        return _Record(raw, cells)


def _unquoted(cell: str) -> str:
    return cell[1:-1].replace('""', '"') if cell.startswith('"') else cell


def _structure(
    text: UInt8[np.ndarray, " size"], delimiter: int
) -> tuple[int, Int[np.ndarray, " cells"], Int[np.ndarray, " rows"]] | None:
    """Where the rows and cells of a chunk end.

    Quotes open and close in turn, and text between an opening and a closing one belongs to a cell.
    A doubled quote closes and opens again, so it needs no rule of its own.

    Returns:
        The end of the last complete row, the offset of the byte after each cell, and the last line
        of each row, from 0. None for a misplaced quote or carriage return, and for a chunk without
        a complete row.
    """
    quotes = np.flatnonzero(text == QUOTE)
    line_ends = np.flatnonzero(text == LINE_FEED)
    last_lines = np.flatnonzero(_outside(line_ends, quotes))
    if not len(last_lines):
        return None
    cut = int(line_ends[last_lines[-1]]) + 1
    quotes = quotes[: np.searchsorted(quotes, cut)]
    opening, closing = quotes[0::2], quotes[1::2]
    # The chunk starts with a row, as if a line feed preceded it.
    before = text[opening[opening > 0] - 1]
    if not np.isin(before, (delimiter, LINE_FEED, QUOTE)).all():
        return None
    if not np.isin(text[closing + 1], (delimiter, LINE_FEED, RETURN, QUOTE)).all():
        return None
    returns = np.flatnonzero(text[:cut] == RETURN)
    if (text[returns[_outside(returns, quotes)] + 1] != LINE_FEED).any():
        return None
    ends = np.flatnonzero((text[:cut] == delimiter) | (text[:cut] == LINE_FEED))
    return cut, ends[_outside(ends, quotes)], last_lines


def _outside(
    offsets: Int[np.ndarray, " n"], quotes: Int[np.ndarray, " q"]
) -> Bool[np.ndarray, " n"]:
    """Which offsets are outside quotes: those after an even number of them."""
    if not len(quotes):
        return np.ones(len(offsets), bool)
    outside: np.ndarray = np.searchsorted(quotes, offsets) % 2 == 0
    return outside


FORMAT = Format(name="CSV", endings=(".csv",), facts=facts, write=write, cells=facts)
