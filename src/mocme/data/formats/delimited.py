"""CSV with named columns, as RFC 4180 has it: cells as they stand, nothing guessed or trimmed.

A header names the columns. A cell that holds the delimiter, a quote, a line feed or a carriage
return is quoted, and a quote within it doubled. A row may so span several lines, and is known by
the line in which it starts. It ends with LF or CRLF.

In the report, a line is a row with all its lines, and the header counts as a comment. A quote that
opens where no cell starts, or closes before its cell ends, or never closes, is an error of the line
in which its row starts: that line is rejected, and reading goes on with the next one.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple
from io import BufferedIOBase, StringIO
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mocme.data.formats.named import CellColumns, FactColumns, Wanted, places
from mocme.data.formats.report import Block, Report
from mocme.data.formats.streams import chunks, opened
from mocme.data.formats.writers import Row, batches, written

DELIMITERS = ",;|\t"
QUOTE, LINE_FEED, RETURN = 34, 10, 13
# Some stands in no cell of a piece, nearly always; it then takes the place of what ends a cell.
UNUSUAL = tuple(bytes([number]) for number in (31, 30, 29, 28, *range(1, 9), *range(14, 28)))
# Bytes that are parsed at a time, and how many may follow a quote before it counts as unclosed.
CHUNK, LONGEST = 1 << 22, 1 << 24


def facts(
    path: str | Path, report: Report, columns: Wanted = None, delimiter: str = ","
) -> Iterator[Block]:
    """Facts of a file, block by block. Columns that are not asked for are not read.

    Args:
        columns: which columns hold them; by default found in the header, see `named.places`.
        delimiter: one of ``,``, ``;``, ``|`` and tab.

    Raises:
        ValueError: the file cannot be read, or its header names no such columns.
    """
    if len(delimiter) != 1 or delimiter not in DELIMITERS:
        raise ValueError(f"a delimiter is one of {', '.join(map(repr, DELIMITERS))}")
    with opened(path, report) as file:
        yield from _DelimitedReader(report, columns, delimiter).blocks(file)


def write(path: str | Path, found: Iterable[Row]) -> None:
    """Write rows as CSV with the header ``head,relation,tail``. It holds every name.

    Raises:
        ValueError: those of `writers.batches` and `writers.written`.
    """
    with written(path) as file:
        text = StringIO(newline="")
        # This line end makes the module quote a cell that holds either of its characters.
        writer = csv.writer(text, lineterminator="\r\n")
        writer.writerow(astuple(FactColumns("head", "relation", "tail")))
        for batch in batches(found, path):
            writer.writerows(batch)
            file.write(text.getvalue().encode())
            text.seek(0)
            text.truncate()
        file.write(text.getvalue().encode())


class _Record(NamedTuple):
    """A row with all its lines: its cells, or what is wrong with its quotes."""

    raw: bytes
    cells: list[bytes]
    problem: str = ""


class _DelimitedReader:
    """Reads a file whose row may go on in the next piece.

    Most pieces are without defect. That is told from where quotes, delimiters and line ends stand,
    for all rows at once, and all cells are then cut at once; else a piece is read row by row.
    """

    def __init__(self, report: Report, columns: Wanted, delimiter: str) -> None:
        self.report, self.columns, self.delimiter = report, columns, delimiter
        self.cell = re.compile(
            rb'"([^"]*(?:""[^"]*)*)"|([^"\r\n%b]*)' % re.escape(delimiter.encode())
        )
        # The next line's number; cells of a row, which the header says; which of them are read.
        self.line, self.width = 1, 0
        self.places: tuple[int, ...] = (0, 1, 2)
        # Names are never empty, other cells may be.
        self.strict = not isinstance(columns, CellColumns)

    def blocks(self, file: BufferedIOBase) -> Iterator[Block]:
        """The rows of an open file."""
        held = b""
        # The empty piece says that nothing follows.
        for piece in chain(chunks(file, self.report, CHUNK), [b""]):
            data = held + piece
            if not data.endswith(b"\n"):
                data += b"\n" if data else b""
            if not self.width:
                data = self._header(data, not piece)
            held = data
            if self.width and data:
                block, held = self._at_once(data) or self._one_by_one(data, not piece)
                self.report.rows += len(block.lines)
                if block.lines:
                    yield block

    def _header(self, data: bytes, final: bool) -> bytes:
        """Read the header, as soon as it is there; return what follows it."""
        at = 0
        while at < len(data) and not self.width:
            record, end = self._record(data, at, final)
            if record is None:
                break
            where = f"{self.report.path}: line {self.line}"
            self.report.lines += 1
            if not record.raw:
                self.report.blank += 1
            elif record.problem:
                raise ValueError(f"{where}: the header has {record.problem}; correct it")
            else:
                self._name(record, where)
                self.report.comments += 1
            self.line += data.count(b"\n", at, end)
            at = end
        return data[at:]

    def _name(self, record: _Record, where: str) -> None:
        try:
            header = [cell.decode() for cell in record.cells]
        except UnicodeDecodeError as error:
            raise ValueError(f"{where}: the header is not UTF-8; save the file as UTF-8") from error
        other = next((d for d in DELIMITERS if d in header[0]), None)
        if len(header) == 1 and other is not None:
            raise ValueError(
                f"{where}: the header has one column, {header[0]!r}, which seems to be several "
                f"with {other!r} between them; say so (delimiter=)"
            )
        self.places = places(header, self.columns, where)
        self.width = len(header)

    def _at_once(self, data: bytes) -> tuple[Block, bytes] | None:
        """All whole rows, and what follows them; None if a row is blank or has a defect."""
        found = _structure(np.frombuffer(data, np.uint8), ord(self.delimiter))
        if found is None:
            return None
        cut, ends, last = found
        if len(ends) != self.width * len(last):
            return None
        held = np.frombuffer(data[:cut], np.uint8).copy()
        is_last = (held[ends] == LINE_FEED).reshape(-1, self.width)
        between = next((sign for sign in UNUSUAL if sign not in data), None)
        if not is_last[:, -1].all() or is_last[:, :-1].any() or between is None:
            return None
        held[ends] = ord(between)
        try:
            text = held.tobytes().decode()
        except UnicodeDecodeError:
            return None
        sign = between.decode()
        # No carriage return stands in front of a delimiter outside quotes.
        cells = text.replace("\r" + sign, sign).split(sign)
        cells.pop()
        columns = tuple(cells[place :: self.width] for place in self.places)
        if b'"' in data:
            columns = tuple(list(map(_unquoted, column)) for column in columns)
        if self.strict and not all(map(all, columns)):
            return None
        lines: Sequence[int] = range(self.line, self.line + len(last))
        if last[-1] != len(last) - 1:
            lines = [self.line, *(last[:-1] + (self.line + 1)).tolist()]
        self.report.lines += len(last)
        self.line += int(last[-1]) + 1
        return Block(columns, lines), data[cut:]

    def _one_by_one(self, data: bytes, final: bool) -> tuple[Block, bytes]:
        """The rows without defect; the others go into the report."""
        rows: list[tuple[str, ...]] = []
        numbers: list[int] = []
        at = 0
        while at < len(data):
            record, end = self._record(data, at, final)
            if record is None:
                break
            self.report.lines += 1
            if not record.raw:
                self.report.blank += 1
            elif problem := record.problem or self._misfit(record):
                self.report.reject(self.line, problem, record.raw)
            else:
                rows.append(tuple(record.cells[place].decode() for place in self.places))
                numbers.append(self.line)
            self.line += data.count(b"\n", at, end)
            at = end
        columns = tuple(map(list, zip(*rows, strict=True))) or ([],) * len(self.places)
        return Block(columns, numbers), data[at:]

    def _misfit(self, record: _Record) -> str:
        try:
            record.raw.decode()
        except UnicodeDecodeError:
            return "not valid UTF-8"
        if len(record.cells) != self.width:
            return f"{len(record.cells)} cells where the header has {self.width}"
        empty = self.strict and not all(record.cells[place] for place in self.places)
        return "an empty name" if empty else ""

    def _record(self, data: bytes, at: int, final: bool) -> tuple[_Record | None, int]:
        """The row that starts at a place, and where the next one does; None if it may go on."""
        line_end = data.index(b"\n", at) + 1
        end, quotes = line_end, data.count(b'"', at, line_end)
        while quotes % 2 and end < len(data) and end - at <= LONGEST:
            start, end = end, data.index(b"\n", end) + 1
            quotes += data.count(b'"', start, end)
        if quotes % 2:
            if not final and end - at <= LONGEST:
                return None, at
            return _Record(data[at : line_end - 1], [], "a quote that never closes"), line_end
        raw = data[at : end - 1].removesuffix(b"\r")
        record = self._cut(raw)
        if record.problem:
            return _Record(data[at : line_end - 1], [], record.problem), line_end
        return record, end

    def _cut(self, raw: bytes) -> _Record:
        cells = []
        at = -1
        while at < len(raw):
            match = self.cell.match(raw, at + 1)
            assert match is not None
            quoted, plain = match.groups()
            cells.append(plain if quoted is None else quoted.replace(b'""', b'"'))
            at = match.end()
            if at < len(raw) and raw[at] != ord(self.delimiter):
                what = "carriage return outside quotes" if raw[at] == RETURN else "misplaced quote"
                return _Record(raw, [], f"a {what}")
        return _Record(raw, cells)


def _unquoted(cell: str) -> str:
    return cell[1:-1].replace('""', '"') if cell.startswith('"') else cell


def _structure(text: np.ndarray, delimiter: int) -> tuple[int, np.ndarray, np.ndarray] | None:
    """Where the whole rows of a piece end, where each of their cells does, and their last lines.

    Lines are counted from 0. Quotes open and close in turn, and what stands between two such is
    part of a cell. A doubled quote closes and opens again. None stands for a misplaced quote or
    carriage return, or for a piece without a whole row.
    """
    quotes = np.flatnonzero(text == QUOTE)
    line_ends = np.flatnonzero(text == LINE_FEED)
    last = np.flatnonzero(_outside(line_ends, quotes))
    if not len(last):
        return None
    cut = int(line_ends[last[-1]]) + 1
    quotes = quotes[: np.searchsorted(quotes, cut)]
    opening, closing = quotes[0::2], quotes[1::2]
    # In front of the first row is a line end.
    before = text[opening[opening > 0] - 1]
    if not np.isin(before, (delimiter, LINE_FEED, QUOTE)).all():
        return None
    if not np.isin(text[closing + 1], (delimiter, LINE_FEED, RETURN, QUOTE)).all():
        return None
    returns = np.flatnonzero(text[:cut] == RETURN)
    if (text[returns[_outside(returns, quotes)] + 1] != LINE_FEED).any():
        return None
    ends = np.flatnonzero((text[:cut] == delimiter) | (text[:cut] == LINE_FEED))
    return cut, ends[_outside(ends, quotes)], last


def _outside(places: np.ndarray, quotes: np.ndarray) -> np.ndarray:
    """Which places are outside quotes."""
    if not len(quotes):
        return np.ones(len(places), bool)
    outside: np.ndarray = np.searchsorted(quotes, places) % 2 == 0
    return outside
