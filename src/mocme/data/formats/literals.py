"""RDF literals as tables: numbers and texts of entities, separate from the facts.

Numbers keep their digits as written. Dates become years with a fraction (`decimal_year`). Every
other literal is a text. Its attribute is the predicate followed by the language (``label@en``) or
the datatype (``point^^http://...#wktLiteral``), as in N-Triples.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO

from mocme.data.formats.rdf import XSD, Value
from mocme.data.formats.writers import atomic_file
from mocme.data.numbers import finite_number, number_problem

IN_MEMORY = 1 << 26  # bytes of numbers, and of texts, before a temporary file is used
ROWS = 1 << 14  # rows that are encoded at a time

_INTEGER = re.compile(r"[+-]?[0-9]+")
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)")
_DOUBLE = re.compile(rf"{_DECIMAL.pattern}(?:[eE][+-]?[0-9]+)?|[+-]?INF|NaN")
_INTEGERS = (
    "integer",
    *("nonPositiveInteger", "negativeInteger", "nonNegativeInteger", "positiveInteger"),
    *("long", "int", "short", "byte"),
    *("unsignedLong", "unsignedInt", "unsignedShort", "unsignedByte"),
)
_FORMS = {
    **dict.fromkeys(_INTEGERS, _INTEGER),
    "decimal": _DECIMAL,
    **dict.fromkeys(("double", "float"), _DOUBLE),
}
_YEAR = r"(?P<year>-?(?:[1-9][0-9]{3,29}|0[0-9]{3}))"
_MONTH = _YEAR + r"-(?P<month>[0-9]{2})"
_DAY = _MONTH + r"-(?P<day>[0-9]{2})"
_TIME = _DAY + r"T(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2}(?:\.[0-9]+)?)"
_ZONE = r"(?:Z|(?P<sign>[+-])(?P<hours>[0-9]{2}):(?P<minutes>[0-9]{2}))?"
_DATES = {
    "gYear": re.compile(_YEAR + _ZONE),
    "gYearMonth": re.compile(_MONTH + _ZONE),
    "date": re.compile(_DAY + _ZONE),
    **dict.fromkeys(("dateTime", "dateTimeStamp"), re.compile(_TIME + _ZONE)),
}
_MONTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_BREAKS = str.maketrans("\t\n\r", "   ")
_BREAK = re.compile(r"[\t\n\r]|\A\ufeff")


class Literals:
    """Numbers and texts of entities, in the order in which they are added.

    Rows are stored as the bytes of TSV files: in memory up to a limit, then in temporary files,
    which `close` (or the end of a ``with`` block) removes.

    Attributes:
        numbers, texts: numbers of rows.
        changed: texts whose tabs, line feeds or carriage returns were replaced by spaces, because
            a cell of TSV cannot hold them.

    Args:
        folder: for the temporary files; the system's by default.
        in_memory: bytes of numbers, and of texts, before a temporary file is used.
    """

    def __init__(self, folder: str | Path | None = None, in_memory: int = IN_MEMORY) -> None:
        self.numbers = self.texts = self.changed = 0
        self._numbers, self._texts = _Rows(folder, in_memory), _Rows(folder, in_memory)

    def __enter__(self) -> Literals:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Discard all rows."""
        self._numbers.file.close()
        self._texts.file.close()

    def add(self, entity: str, attribute: str, value: Value) -> None:
        """Add a number or a text.

        Raises:
            ValueError: the number is malformed or not finite, or a TSV file cannot hold a name.
        """
        for name in (entity, attribute):
            if not name.isprintable() and _BREAK.search(name):
                raise ValueError(
                    f"{name[:80]!r} has a literal, but a table of literals cannot hold a name with "
                    f"a tab, a line break or a byte order mark at its start; rename it"
                )
        text, language, datatype = value
        kind = datatype.removeprefix(XSD) if datatype.startswith(XSD) else ""
        if kind in _FORMS or kind in _DATES:
            self._numbers.add(f"{entity}\t{attribute}\t{number(text, kind)}\n")
            self.numbers += 1
            return
        mark = f"@{language}" if language else f"^^{datatype}" if datatype else ""
        cell = text if text.isprintable() else text.translate(_BREAKS)
        self.changed += cell != text
        self._texts.add(f"{entity}\t{attribute}{mark}\t{cell}\n")
        self.texts += 1

    def write_numbers(self, path: str | Path) -> int:
        """Write rows entity, attribute, number as TSV; return their number.

        Raises:
            ValueError: the file cannot be written.
        """
        self._numbers.write(path)
        return self.numbers

    def write_texts(self, path: str | Path) -> int:
        """Write rows entity, attribute, text as TSV; return their number.

        Raises:
            ValueError: the file cannot be written.
        """
        self._texts.write(path)
        return self.texts

    def __str__(self) -> str:
        text = f"{self.numbers:,} numbers and {self.texts:,} texts"
        if self.changed:
            text += f"; tabs and line breaks became spaces in {self.changed:,} of the texts"
        return text


class _Rows:
    """Lines in a temporary file, to which many are written at a time."""

    def __init__(self, folder: str | Path | None, in_memory: int) -> None:
        self.folder = str(folder or tempfile.gettempdir())
        self.file: IO[bytes] = tempfile.SpooledTemporaryFile(in_memory, dir=self.folder)  # noqa: SIM115
        self.pending: list[str] = []

    def add(self, line: str) -> None:
        self.pending.append(line)
        if len(self.pending) >= ROWS:
            self.flush()

    def flush(self) -> None:
        """Write the pending lines.

        Raises:
            OSError: the folder has no space; the message names it.
        """
        try:
            self.file.seek(0, 2)
            self.file.write("".join(self.pending).encode())
        except OSError as error:
            text = f"literals cannot be stored in {self.folder}: {error.strerror}"
            raise OSError(error.errno, text) from error
        self.pending.clear()

    def write(self, path: str | Path) -> None:
        with atomic_file(path) as file:
            self.flush()
            self.file.seek(0)
            shutil.copyfileobj(self.file, file, 1 << 20)


def number(text: str, kind: str) -> str:
    """A number of an XSD type as written, or a date as a year with a fraction.

    Args:
        kind: the type's name without its namespace.

    Raises:
        ValueError: the text is not valid for that type, or the number is not finite.
    """
    text = text.strip(" \t\n\r")
    if kind in _DATES:
        return repr(decimal_year(text, kind))
    if not _FORMS[kind].fullmatch(text):
        raise ValueError(f"{text[:80]!r} is not a valid xsd:{kind}; correct it")
    if finite_number(text) is None:
        raise ValueError(f"{number_problem(text)}; leave the value out")
    return text


def decimal_year(text: str, kind: str = "date") -> float:
    """The start of a year, month, day or moment, in years: the year and the fraction that passed.

    The calendar is Gregorian at all times, and years are numbered as written (as in XSD 1.1: 0000
    comes before 0001). A moment (dateTime) with a time zone is converted to UTC; a longer period
    starts when it does at its location.

    Args:
        kind: gYear, gYearMonth, date, dateTime or dateTimeStamp, of XSD.

    Raises:
        ValueError: the text is not valid for that type, or there is no such date.
    """
    match = _DATES[kind].fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:80]!r} is not a valid xsd:{kind}; correct it")
    part = {key: value for key, value in match.groupdict().items() if value}
    year, month, day = (int(part.get(key, 1)) for key in ("year", "month", "day"))
    hour, minute, second = (float(part.get(key, 0)) for key in ("hour", "minute", "second"))
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    length = _MONTHS[month - 1] + (leap and month == 2) if 1 <= month <= 12 else 0
    midnight = hour == 24 and minute == second == 0
    if not (1 <= day <= length and (hour < 24 or midnight) and minute < 60 and second < 60):
        raise ValueError(f"{text[:80]!r}: there is no such date; correct it")
    seconds = hour * 3600 + minute * 60 + second
    if "hour" in part and "sign" in part:
        zone = int(part["hours"]) * 3600 + int(part["minutes"]) * 60
        seconds += zone if part["sign"] == "-" else -zone
    days = sum(_MONTHS[: month - 1]) + (leap and month > 2) + day - 1
    return year + (days + seconds / 86_400) / (366 if leap else 365)
