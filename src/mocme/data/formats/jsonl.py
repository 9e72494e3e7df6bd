r"""JSON lines: an object in each line, with three keys whose values are names.

Which keys they are is found in the first object, and the same in all lines. A name is a string; a
number, null and so on is rejected instead of being written out, for 7 and "007" are not the same
name. The tail may be a list of names, each of which is a fact; an empty one is none. A line ends
with LF or CRLF; one without an object is blank.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mocme.data.formats.named import CellColumns, Wanted, places
from mocme.data.formats.report import Block, Report
from mocme.data.formats.streams import chunks, opened
from mocme.data.formats.writers import Row, batches, written

# Bytes that are parsed at a time.
CHUNK = 1 << 22
KINDS = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "null",
    list: "a list",
    tuple: "an object",
    str: "a string",
}


def facts(path: str | Path, report: Report, columns: Wanted = None) -> Iterator[Block]:
    """Facts of a file, block by block. Keys that are not asked for are not read.

    Args:
        columns: which keys hold them; by default found in the first object, see `named.places`.

    Raises:
        ValueError: the file cannot be read, or its first object has no such keys; of cells that
            may be missing (`CellColumns`), no object at all has one.
    """
    reader = _JsonLinesReader(report, columns)
    with opened(path, report) as file:
        for data in chunks(file, report, CHUNK):
            block = reader.block(data)
            report.rows += len(block.lines)
            if block.lines:
                yield block
    if reader.first and reader.unseen:
        known = ", ".join(map(repr, reader.first[:8]))
        raise ValueError(
            f"{path}: no object has a key {min(reader.unseen)!r}; the first has {known}"
        )


def write(path: str | Path, found: Iterable[Row]) -> None:
    """Write rows as objects with the keys head, relation and tail. It holds every name.

    Raises:
        ValueError: those of `writers.batches` and `writers.written`.
    """
    text = json.JSONEncoder(ensure_ascii=False).encode
    with written(path) as file:
        for batch in batches(found, path):
            lines = [
                f'{{"head": {text(h)}, "relation": {text(r)}, "tail": {text(t)}}}\n'
                for h, r, t in batch
            ]
            file.write("".join(lines).encode())


class _JsonLinesReader:
    """Reads pieces of a file, one after the other.

    Names have to be strings. Other cells (`CellColumns`) may be missing, null or empty, and a number is
    taken with its digits as they stand.
    """

    def __init__(self, report: Report, columns: Wanted) -> None:
        self.report, self.columns = report, columns
        self.strict = not isinstance(columns, CellColumns)
        self.keys = columns.names if isinstance(columns, CellColumns) else ()
        # Keys that no object has had yet, and those of the first object.
        self.unseen = set() if self.strict else set(self.keys)
        self.first: tuple[str, ...] = ()
        # Whose value may be a list.
        self.several = columns.several if isinstance(columns, CellColumns) else None
        digits: dict[str, Any] = {} if self.strict else {"parse_float": str, "parse_int": str}
        # An object comes as a tuple of pairs, so that a repeated key is seen.
        self.decode = json.JSONDecoder(
            object_pairs_hook=tuple, parse_constant=_no_constant, **digits
        ).decode
        # Lines with these keys only and nothing escaped, and which of its groups is which name.
        self.plain = re.compile("(?!)")
        self.groups: tuple[int, ...] = (1, 2, 3)

    def block(self, data: bytes) -> Block:
        """The rows of whole lines; the other lines go into the report."""
        report = self.report
        try:
            text, whole = data.decode(), True
        except UnicodeDecodeError:
            text, whole = data.decode(errors="surrogateescape"), False
        # Rows held as tuples would keep the garbage collector busy.
        columns: tuple[list[str], ...] = tuple([] for _ in self.keys or self.groups)
        numbers: list[int] = []
        number = report.lines
        for number, line in enumerate(text.removesuffix("\n").split("\n"), report.lines + 1):
            if whole and (match := self.plain.fullmatch(line)):
                rows = [match.group(*self.groups)]
            elif line.strip(" \t\r"):
                try:
                    rows = self._rows(line, number)
                except _Unfit as error:
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
            raise _Unfit("not valid UTF-8")
        try:
            pairs = self.decode(line)
        except RecursionError as error:
            raise _Unfit("nested too deeply") from error
        except ValueError as error:
            raise _Unfit(f"not valid JSON ({error})") from error
        if type(pairs) is not tuple:
            raise _Unfit(f"{KINDS[type(pairs)]} where an object is expected")
        values = dict(pairs)
        self.unseen -= values.keys()
        self.first = self.first or tuple(values)
        if len(values) != len(pairs):
            raise _Unfit(f"the key {_repeated(pairs)!r} stands twice")
        if not self.keys:
            self._name(list(values), f"{self.report.path}: line {number}")
        # Half of a surrogate pair can only be written as an escape.
        odd = "\\u" in line
        listed = values.get(self.several) if self.several else None
        if not isinstance(listed, list):
            return [tuple([self._value(values, key, odd) for key in self.keys])]
        if not self.strict:
            listed = listed or [None]
        each = [{**values, self.several: value} for value in listed]
        rows = [tuple([self._value(one, key, odd) for key in self.keys]) for one in each]
        if rows:
            self.report.further += len(rows) - 1
        else:
            self.report.empty += 1
        return rows

    def _name(self, keys: list[str], where: str) -> None:
        found = places(keys, self.columns, where)
        self.keys = tuple(keys[place] for place in found)
        self.several = self.keys[2]
        order = sorted(found)
        self.groups = tuple(order.index(place) + 1 for place in found)
        members = [
            re.escape(json.dumps(keys[place], ensure_ascii=False)) + r': ?"([^"\\\x00-\x1f]+)"'
            for place in order
        ]
        self.plain = re.compile(r"\{" + ", ?".join(members) + r"\}\r?")

    def _value(self, values: dict[str, object], key: str, odd: bool) -> str:
        value = values.get(key)
        if not self.strict and value is None:
            return ""
        if not isinstance(value, str):
            is_there = f"{key!r} is {KINDS[type(value)]}, not a string"
            raise _Unfit(is_there if key in values else f"no key {key!r}")
        if self.strict and not value:
            raise _Unfit("an empty name")
        if odd and _has_surrogate(value):
            raise _Unfit(f"{key!r} holds half a surrogate pair, which is no character")
        return value


class _Unfit(ValueError):
    """A line that is no row; the message is the reason."""


def _has_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _repeated(pairs: tuple[tuple[str, object], ...]) -> str:
    seen: set[str] = set()
    # Adding to a set gives None.
    return next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
