r"""JSON lines: an object in each line, with three keys whose values are names.

The keys are found in the first object and are the same in all lines. A name is a string; a number,
null and so on is rejected instead of being converted, because 7 and "007" are different names. The
tail may be a list of names, each of which is a fact; an empty list adds none. A line ends with LF
or CRLF; a line of white space is blank.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mocme.data.formats.base import Format
from mocme.data.formats.columns import CellColumns, Columns, column_indices
from mocme.data.formats.report import Block, Report
from mocme.data.formats.streams import line_chunks, open_stream
from mocme.data.formats.writers import Row, atomic_file, batches

# Bytes that are parsed at a time.
CHUNK = 1 << 22
TYPE_NAMES = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "null",
    list: "a list",
    tuple: "an object",
    str: "a string",
}


def facts(path: str | Path, report: Report, columns: Columns = None) -> Iterator[Block]:
    """Facts of a file, block by block. Other keys are not read.

    Args:
        columns: which keys are read; see `columns.column_indices` for the default, which looks
            at the first object.

    Raises:
        ValueError: the file cannot be read, or its first object lacks the keys. With
            `CellColumns`, whose cells may be missing: no object has one of the keys.
    """
    reader = _JsonLinesReader(report, columns)
    with open_stream(path, report) as file:
        for data in line_chunks(file, report, CHUNK):
            block = reader.block(data)
            report.rows += len(block.lines)
            if block.lines:
                yield block
    if reader.first_keys and reader.missing:
        known = ", ".join(map(repr, reader.first_keys[:8]))
        raise ValueError(
            f"{path}: no object has a key {min(reader.missing)!r}; the first has {known}"
        )


def write(path: str | Path, rows: Iterable[Row]) -> None:
    """Write rows as objects with the keys head, relation and tail. JSON holds every name.

    Raises:
        ValueError: see `writers.batches` and `writers.written`.
    """
    text = json.JSONEncoder(ensure_ascii=False).encode
    with atomic_file(path) as file:
        for batch in batches(rows, path):
            lines = [
                f'{{"head": {text(h)}, "relation": {text(r)}, "tail": {text(t)}}}\n'
                for h, r, t in batch
            ]
            file.write("".join(lines).encode())


class _JsonLinesReader:
    """Reads a file chunk by chunk.

    Names must be strings. Other cells (`CellColumns`) may be missing, null or empty, and a number
    keeps its digits as they are written.

    Attributes:
        missing: keys that no object has had so far.
        first_keys: keys of the first object.
    """

    def __init__(self, report: Report, columns: Columns) -> None:
        self.report, self.columns = report, columns
        self.strict = not isinstance(columns, CellColumns)
        self.keys = columns.names if isinstance(columns, CellColumns) else ()
        self.missing = set() if self.strict else set(self.keys)
        self.first_keys: tuple[str, ...] = ()
        # The key whose value may be a list.
        self.several = columns.several if isinstance(columns, CellColumns) else None
        digits: dict[str, Any] = {} if self.strict else {"parse_float": str, "parse_int": str}
        # An object is decoded as a tuple of pairs, so that a repeated key is noticed.
        self.decode = json.JSONDecoder(
            object_pairs_hook=tuple, parse_constant=_refuse_constant, **digits
        ).decode
        # Matches lines with exactly these keys and no escapes, which most lines are; `groups` are
        # its groups for head, relation and tail. Before the first object it matches nothing.
        self.plain = re.compile("(?!)")
        self.groups: tuple[int, ...] = (1, 2, 3)

    def block(self, data: bytes) -> Block:
        """The rows among some complete lines; the others are counted in the report."""
        report = self.report
        try:
            text, is_utf8 = data.decode(), True
        except UnicodeDecodeError:
            text, is_utf8 = data.decode(errors="surrogateescape"), False
        # One list per column: a tuple per row would slow down the garbage collector.
        columns: tuple[list[str], ...] = tuple([] for _ in self.keys or self.groups)
        numbers: list[int] = []
        number = report.lines
        for number, line in enumerate(text.removesuffix("\n").split("\n"), report.lines + 1):
            if is_utf8 and (match := self.plain.fullmatch(line)):
                rows = [match.group(*self.groups)]
            elif line.strip(" \t\r"):
                try:
                    rows = self._rows(line, number)
                except _Misfit as error:
                    report.reject(number, str(error), line.encode(errors="surrogateescape"))
                    continue
            else:
                report.blank += 1
                continue
            for row in rows:
                for column, cell in zip(columns, row, strict=True):
                    column.append(cell)
                numbers.append(number)
        report.lines = number
        return Block(columns, numbers)

    def _rows(self, line: str, number: int) -> list[tuple[str, ...]]:
        if _has_surrogate(line):
            raise _Misfit("not valid UTF-8")
        try:
            pairs = self.decode(line)
        except RecursionError as error:
            raise _Misfit("nested too deeply") from error
        except ValueError as error:
            raise _Misfit(f"not valid JSON ({error})") from error
        if type(pairs) is not tuple:
            raise _Misfit(f"{TYPE_NAMES[type(pairs)]} where an object is expected")
        values = dict(pairs)
        self.missing -= values.keys()
        self.first_keys = self.first_keys or tuple(values)
        if len(values) != len(pairs):
            raise _Misfit(f"the key {_repeated(pairs)!r} occurs twice")
        if not self.keys:
            self._choose_keys(list(values), f"{self.report.path}: line {number}")
        # Half of a surrogate pair can only be written as an escape.
        may_have_surrogate = "\\u" in line
        tails = values.get(self.several) if self.several else None
        if not isinstance(tails, list):
            return [tuple([self._value(values, key, may_have_surrogate) for key in self.keys])]
        if not self.strict:
            tails = tails or [None]
        objects = [{**values, self.several: tail} for tail in tails]
        rows = [
            tuple([self._value(one, key, may_have_surrogate) for key in self.keys])
            for one in objects
        ]
        if rows:
            self.report.further += len(rows) - 1
        else:
            self.report.empty += 1
        return rows

    def _choose_keys(self, keys: list[str], where: str) -> None:
        """Choose the keys of names and build the expression for plain lines."""
        indices = column_indices(keys, self.columns, where)
        self.keys = tuple(keys[index] for index in indices)
        self.several = self.keys[2]
        order = sorted(indices)
        self.groups = tuple(order.index(index) + 1 for index in indices)
        members = [
            re.escape(json.dumps(keys[index], ensure_ascii=False)) + r': ?"([^"\\\x00-\x1f]+)"'
            for index in order
        ]
        self.plain = re.compile(r"\{" + ", ?".join(members) + r"\}\r?")

    def _value(self, values: dict[str, object], key: str, may_have_surrogate: bool) -> str:
        value = values.get(key)
        if not self.strict and value is None:
            return ""
        if not isinstance(value, str):
            wrong_type = f"{key!r} is {TYPE_NAMES[type(value)]}, not a string"
            raise _Misfit(wrong_type if key in values else f"no key {key!r}")
        if self.strict and not value:
            raise _Misfit("an empty name")
        if may_have_surrogate and _has_surrogate(value):
            raise _Misfit(f"{key!r} contains half a surrogate pair, which is not a character")
        return value


class _Misfit(ValueError):
    """A line is not a row; the message is the reason."""


def _has_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _repeated(pairs: tuple[tuple[str, object], ...]) -> str:
    seen: set[str] = set()
    # set.add returns None.
    return next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]


FORMAT = Format(
    name="JSON lines", endings=(".jsonl", ".ndjson"), facts=facts, write=write, cells=facts
)
