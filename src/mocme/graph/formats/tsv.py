"""Tab-separated text, byte for byte: no quoting, no escapes, no header, no type guessing.

A line ends with LF or CRLF. Every line is accounted for: a row, a blank line, a comment, or a reject
with its number and reason. A comment is a line that starts with ``#`` and does not have the number of
columns of a row (so that a name may start with ``#``).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Reject:
    """A line that could not be read as a row."""

    line: int
    reason: str
    text: str


@dataclass
class Report:
    """What became of every line of a file.

    ``lines == rows + blank + comments + len(rejects)``, and the reader of the rows divides
    ``rows`` into those used and `duplicates`.
    """

    path: str
    lines: int = 0
    rows: int = 0
    duplicates: int = 0
    blank: int = 0
    comments: int = 0
    bom: bool = False
    sha256: str = ""
    rejects: list[Reject] = field(default_factory=list)

    @property
    def used(self) -> int:
        return self.rows - self.duplicates

    def __str__(self) -> str:
        parts = [f"{self.lines:,} lines = {self.used:,} rows"]
        parts.append(f"{self.duplicates:,} duplicates")
        parts.append(f"{self.blank + self.comments:,} blank and comment lines")
        parts.append(f"{len(self.rejects):,} rejects")
        text = f"{self.path}: " + " + ".join(parts)
        if self.bom:
            text += "; a byte order mark at its start was dropped"
        for reject in self.rejects[:5]:
            text += f"\n  line {reject.line}: {reject.reason}: {reject.text!r}"
        if len(self.rejects) > 5:
            text += f"\n  and {len(self.rejects) - 5:,} more"
        return text


@dataclass(frozen=True)
class Table:
    """Rows of a file as tuples of names, their line numbers, and the account of the file."""

    rows: list[tuple[str, ...]]
    lines: list[int]
    report: Report


def read(path: str | Path, columns: int | None) -> Table:
    """Read a file of `columns` non-empty columns.

    With `columns` None the first row decides, and every later row must agree; then columns after
    the first may be empty.

    Raises:
        ValueError: the file is absent or cannot be read, named with the remedy.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    report = Report(str(path), sha256=hashlib.sha256(data).hexdigest())
    if data.startswith(BOM):
        report.bom = True
        data = data[len(BOM) :]
    body = data.split(b"\n")
    if body and not body[-1]:
        body.pop()
    report.lines = len(body)
    rows: list[tuple[str, ...]] = []
    numbers: list[int] = []
    strict = columns is not None
    for number, raw in enumerate(body, 1):
        raw = raw.removesuffix(b"\r")
        if not raw:
            report.blank += 1
            continue
        cells = raw.split(b"\t")
        if raw.startswith(b"#") and columns is not None and len(cells) != columns:
            report.comments += 1
            continue
        try:
            row = tuple(cell.decode() for cell in cells)
        except UnicodeDecodeError:
            _reject(report, number, "not valid UTF-8", raw)
            continue
        if columns is None:
            columns = len(row)
        if len(row) != columns:
            _reject(report, number, f"{len(row)} columns where {columns} are expected", raw)
        elif not row[0] or (strict and not all(row)):
            _reject(report, number, "an empty name", raw)
        else:
            rows.append(row)
            numbers.append(number)
    report.rows = len(rows)
    return Table(rows, numbers, report)


def _reject(report: Report, number: int, reason: str, raw: bytes) -> None:
    report.rejects.append(Reject(number, reason, raw[:80].decode(errors="replace")))
