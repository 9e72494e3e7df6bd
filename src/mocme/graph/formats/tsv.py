"""Tab-separated text, byte for byte: no quoting, no escapes, no header, no type guessing.

A line ends with LF or CRLF. Every line is accounted for: a row, a blank line, a comment, or a
reject with its number and reason. A comment is a line that starts with ``#`` and does not have the
number of columns of a row (so that a name may start with ``#``).
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

    With `columns` None the first row decides (a line of one column that starts with ``#`` is no
    row), and every later row must agree; then columns after the first may be empty.

    Raises:
        ValueError: the file is absent or cannot be read, named with the remedy.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    return parse(data, columns, str(path))


def parse(data: bytes, columns: int | None, path: str) -> Table:
    """Read the bytes of a file as `read` does; `path` is for its report only."""
    report = Report(path, sha256=hashlib.sha256(data).hexdigest())
    if data.startswith(BOM):
        report.bom = True
        data = data[len(BOM) :]
    body = data.replace(b"\r\n", b"\n").split(b"\n")
    if not body[-1]:
        body.pop()
    report.lines = len(body)
    rows: list[tuple[str, ...]] = []
    numbers: list[int] = []
    strict = columns is not None
    for number, raw in enumerate(body, 1):
        if not raw:
            report.blank += 1
            continue
        if raw.startswith(b"#"):
            width = raw.count(b"\t") + 1
            if (width == 1) if columns is None else (width != columns):
                report.comments += 1
                continue
        try:
            row = tuple(raw.decode().split("\t"))
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


def _reject(report: Report, number: int, reason: str, raw: bytes) -> None:
    report.rejects.append(Reject(number, reason, raw[:80].decode(errors="replace")))
