"""N-Triples: one statement a line, in pieces of megabytes, and to the letter what pyoxigraph reads.

A regular expression reads lines of the plain shape (IRIs, short labels, literals with the common
escapes). Every other line goes to pyoxigraph alone, in its turn: it may be a statement, blank, a
comment, or a reject with pyoxigraph's reason. A line ends with LF or CRLF.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Sequence
from itertools import compress
from operator import not_
from pathlib import Path
from typing import Any

from mocme.data.formats import rdf
from mocme.data.formats.literals import Literals
from mocme.data.formats.rdf import BASE, PLAIN_IRI, PLAIN_LABEL, Value, term
from mocme.data.formats.report import Block, Report
from mocme.data.formats.statements import Statements
from mocme.data.formats.streams import chunks, opened
from mocme.data.formats.writers import Row, batches, written

ENDINGS = (".nt", ".ntriples")
SIZE = 1 << 18  # bytes that become rows at a time: what they become should fit a processor's cache
MARKS = 10_000  # languages and datatypes that are remembered

# An IRI within brackets or a label without them, the same group for both.
_NODE = rf"<?((?<=<){PLAIN_IRI}(?=>)|(?<!<){PLAIN_LABEL}(?= ))>?"
_ESCAPES = r"""\\(?:[tbnrf"'\\]|u(?![dD][89a-fA-F])[0-9A-Fa-f]{4})"""
_TEXT = rf'[^"\\\n\r]*+(?:{_ESCAPES}[^"\\\n\r]*+)*+'
_LITERAL = rf'"({_TEXT})"((?:@[A-Za-z]++(?:-[A-Za-z0-9]++)*+|\^\^<{PLAIN_IRI}>)?+)'
_LINES = re.compile(rf"{_NODE} <({PLAIN_IRI})> (?:{_NODE}|{_LITERAL}) \.\n|([^\n]*\n)")
_ESCAPE = re.compile(r"\\(?:u(....)|(.))")
_ESCAPED = {"t": "\t", "b": "\b", "n": "\n", "r": "\r", "f": "\f"}
# Parts of a line: head, relation, tail or (text, mark) for a literal, or else the whole line; what
# it does not have is None. Between two lines there is an empty part.
STEP = 7


def facts(
    path: str | Path,
    report: Report,
    literals: Literals | None = None,
    predicates: Container[str] | None = None,
) -> Iterator[Block]:
    """Facts of a file, block by block; a row is subject, predicate, object.

    Args:
        literals: where statements go whose object is a literal; None counts them only, and does
            not look at their numbers.
        predicates: whose statements are kept, None for all; `report` is a `Selection` then.

    Raises:
        ValueError: the file is absent or cannot be read, or pyoxigraph is not installed; named
            with the remedy.
    """
    rdf.oxigraph()
    reader = _NTriplesReader(Statements(report, literals, predicates))
    with opened(path, report) as file:
        for data in chunks(file, report, SIZE):
            block = reader.read(data)
            if block.lines:
                yield block


class _NTriplesReader:
    """Reads a file piece by piece."""

    def __init__(self, statements: Statements) -> None:
        self.statements, self.report = statements, statements.report
        # What pyoxigraph makes of a literal's language or datatype; None where it refuses it.
        self.marks: dict[str, Value | None] = {}

    def read(self, data: bytes) -> Block:
        """The facts in some whole lines."""
        data = data.replace(b"\r\n", b"\n")
        data = data if data.endswith(b"\n") else data + b"\n"
        parts, ours = _taken_apart(data)
        columns = [parts[place::STEP] for place in range(1, STEP)]
        first, count = self.report.lines + 1, len(columns[0])
        self.report.lines += count
        numbers: Sequence[int] = range(first, first + count)
        if ours or not all(map(self._mark, {*columns[4]} - {None})):
            self._take(numbers, columns)
            return self.statements.block()
        if self.statements.predicates is not None:
            kept = self.statements.wanted(columns[1])
            numbers = list(compress(numbers, kept))
            columns = [list(compress(column, kept)) for column in columns]
        return self._sorted(numbers, columns)

    def _sorted(self, numbers: Sequence[int], columns: list[list[Any]]) -> Block:
        """The facts among lines of wanted predicates, none of them with a name of ours."""
        heads, relations, tails, _, _, odd = columns
        plain = len(tails) - tails.count(None)
        self.report.rows += plain
        if plain == len(tails):
            return Block((heads, relations, tails), numbers)
        facts = [list(compress(column, tails)) for column in (heads, relations, tails)]
        block = Block(tuple(facts), list(compress(numbers, tails)))
        others: list[Any] = odd
        if self.statements.literals is None:
            self.report.literals += odd.count(None) - plain
        else:
            others = list(map(not_, tails))
        self._take(compress(numbers, others), [compress(column, others) for column in columns])
        return _merged(block, self.statements.block())

    def _take(self, numbers: Iterable[int], columns: Iterable[Iterable[Any]]) -> None:
        """Take lines one by one."""
        add = self.statements.add
        for number, head, relation, tail, text, mark, odd in zip(numbers, *columns, strict=True):
            if tail is not None:
                add(number, head, relation, tail)
            elif odd is not None:
                self._judge(number, odd)
            elif (kind := self._mark(mark)) is None:
                self._judge(number, f'{rdf.written(head)} <{relation}> "{text}"{mark} .')
            else:
                text = _ESCAPE.sub(_unescaped, text) if "\\" in text else text
                add(number, head, relation, Value(text, kind.language, kind.datatype))

    def _judge(self, number: int, line: str | bytes) -> None:
        """Take a line as pyoxigraph reads it."""
        raw = (line.encode() if isinstance(line, str) else line).removesuffix(b"\n")
        if not raw.strip(b" \t\r"):
            self.report.blank += 1
            return
        try:
            found = rdf.parsed(raw)
            if len(found) > 1:
                # A carriage return alone ends a line for pyoxigraph.
                raise ValueError(f"{len(found)} statements in a line; end each with a line feed")
            stated = rdf.statement(found[0]) if found else None
        except SyntaxError as error:
            self.report.reject(number, rdf.reason(error), raw)
        except (ValueError, MemoryError) as error:
            # MemoryError: a line longer than pyoxigraph reads.
            self.report.reject(number, str(error), raw)
        else:
            if stated is None:
                self.report.comments += 1
            else:
                self.statements.add(number, *stated)

    def _mark(self, mark: str) -> Value | None:
        """An empty literal with this language or datatype, written as it stands in a line."""
        if mark not in self.marks:
            if len(self.marks) >= MARKS:
                self.marks.clear()
            try:
                (quad,) = rdf.parsed(f'<a:a> <a:a> ""{mark} .')
            except SyntaxError:
                self.marks[mark] = None
            else:
                found = rdf.statement(quad)[2]
                assert isinstance(found, Value)
                self.marks[mark] = found
        return self.marks[mark]


def _taken_apart(data: bytes) -> tuple[list[Any], bool]:
    """Parts of lines one after the other, and whether a name of ours may be among them."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        parts = [part for raw in data.split(b"\n")[:-1] for part in _one_taken_apart(raw)[1:]]
        return ["", *parts], True
    # One list for all lines: a tuple for each would take longer.
    return _LINES.split(text), BASE in text


def _one_taken_apart(raw: bytes) -> list[Any]:
    try:
        return _LINES.split(raw.decode() + "\n")
    except UnicodeDecodeError:
        # The bytes may stand in a comment, where pyoxigraph does not mind them.
        return ["", None, None, None, None, None, raw, ""]


def _merged(one: Block, two: Block) -> Block:
    """The rows of two blocks in the order of their lines."""
    if not two.lines:
        return one
    numbers = [*one.lines, *two.lines]
    order = sorted(range(len(numbers)), key=numbers.__getitem__)
    columns = [[*a, *b] for a, b in zip(one.columns, two.columns, strict=True)]
    chosen = (list(map(column.__getitem__, order)) for column in columns)
    return Block(tuple(chosen), list(map(numbers.__getitem__, order)))


def _unescaped(found: re.Match[str]) -> str:
    code, letter = found.groups()
    return chr(int(code, 16)) if code else _ESCAPED.get(letter, letter)


def write(path: str | Path, rows: Iterable[Row]) -> None:
    """Write facts as N-Triples; `facts` gives back exactly their names.

    A name that is an absolute IRI or a blank node (``_:label``, not as a relation) is written as
    such, any other under `rdf.BASE`.

    Args:
        path: compressed if it ends with ``.gz`` or ``.zst``; ``-`` for standard output.

    Raises:
        ValueError: a name is empty or no Unicode text, or the file cannot be written, and what was
            there before stays; or pyoxigraph is not installed.
    """
    rdf.oxigraph()
    with written(path) as file:
        for batch in batches(rows, path):
            lines = [f"{term(h)} {term(r, relation=True)} {term(t)} .\n" for h, r, t in batch]
            file.write("".join(lines).encode())
