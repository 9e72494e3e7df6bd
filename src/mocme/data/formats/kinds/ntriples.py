"""N-Triples: one statement per line, read in chunks with exactly the result of pyoxigraph.

A regular expression reads lines of the plain shape (IRIs, short labels, literals with the common
escapes). pyoxigraph parses every other line on its own: it may be a statement, blank, a comment, or
a reject with pyoxigraph's reason. A line ends with LF or CRLF.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Sequence
from itertools import compress
from operator import not_
from pathlib import Path
from typing import Any

from mocme.data.formats import rdf
from mocme.data.formats.base import Format, facts_of
from mocme.data.formats.literals import Literals
from mocme.data.formats.rdf import BASE, PLAIN_IRI, PLAIN_LABEL, Value, term
from mocme.data.formats.report import Block, Report
from mocme.data.formats.statements import Statements
from mocme.data.formats.streams import line_chunks, normalize_line_ends, open_stream
from mocme.data.formats.writers import Row, atomic_file, batches

CHUNK = 1 << 18  # bytes that are parsed at a time; the resulting rows fit a processor cache
MARKS = 10_000  # languages and datatypes that are cached

# An IRI in brackets or a label without them, in the same group for both.
_NODE = rf"<?((?<=<){PLAIN_IRI}(?=>)|(?<!<){PLAIN_LABEL}(?= ))>?"
# \uXXXX, but not for surrogates (D800 to DFFF), about which pyoxigraph decides.
_ESCAPES = r"""\\(?:[tbnrf"'\\]|u(?![dD][89a-fA-F])[0-9A-Fa-f]{4})"""
_TEXT = rf'[^"\\\n\r]*+(?:{_ESCAPES}[^"\\\n\r]*+)*+'
_LITERAL = rf'"({_TEXT})"((?:@[A-Za-z]++(?:-[A-Za-z0-9]++)*+|\^\^<{PLAIN_IRI}>)?+)'
_LINES = re.compile(rf"{_NODE} <({PLAIN_IRI})> (?:{_NODE}|{_LITERAL}) \.\n|([^\n]*\n)")
_ESCAPE = re.compile(r"\\(?:u(....)|(.))")
_ESCAPED = {"t": "\t", "b": "\b", "n": "\n", "r": "\r", "f": "\f"}
# `_LINES.split` gives this many parts per line: an empty one, then the six groups head, relation,
# tail, text and mark (language or datatype) of a literal, and the whole of any other line. Groups
# that did not match are None.
PARTS = 7


def statements(
    path: str | Path,
    report: Report,
    literals: Literals | None = None,
    predicates: Container[str] | None = None,
) -> Iterator[Block]:
    """Facts of a file, block by block; a row is subject, predicate, object.

    Args:
        literals: receives statements whose object is a literal; None only counts them and does
            not check their numbers.
        predicates: the predicates to keep, None for all; `report` must then be a `Selection`.

    Raises:
        ValueError: the file is absent or cannot be read, or pyoxigraph is not installed.
    """
    rdf.oxigraph()
    reader = _NTriplesReader(Statements(report, literals, predicates))
    with open_stream(path, report) as file:
        for data in line_chunks(file, report, CHUNK):
            block = reader.read(data)
            if block.lines:
                yield block


class _NTriplesReader:
    """Reads a file chunk by chunk.

    Attributes:
        marks: the empty literal of each language or datatype, as pyoxigraph reads it; None if it
            refuses the mark.
    """

    def __init__(self, statements: Statements) -> None:
        self.statements, self.report = statements, statements.report
        self.marks: dict[str, Value | None] = {}

    def read(self, data: bytes) -> Block:
        """The facts in some complete lines."""
        parts, may_have_base = _split_lines(normalize_line_ends(data))
        columns = [parts[index::PARTS] for index in range(1, PARTS)]
        first, count = self.report.lines + 1, len(columns[0])
        self.report.lines += count
        numbers: Sequence[int] = range(first, first + count)
        if may_have_base or not all(map(self._mark, {*columns[4]} - {None})):
            self._add_all(numbers, columns)
            return self.statements.block()
        if self.statements.predicates is not None:
            kept = self.statements.select(columns[1])
            numbers = list(compress(numbers, kept))
            columns = [list(compress(column, kept)) for column in columns]
        return self._block(numbers, columns)

    def _block(self, numbers: Sequence[int], columns: list[list[Any]]) -> Block:
        """The facts among lines of kept predicates, none of which has an IRI under BASE.

        Facts of the plain shape are selected as columns. Only the others, and the literals if
        they are kept, are added line by line.
        """
        heads, relations, tails, _, _, other_lines = columns
        plain = len(tails) - tails.count(None)
        self.report.rows += plain
        if plain == len(tails):
            return Block((heads, relations, tails), numbers)
        facts = [list(compress(column, tails)) for column in (heads, relations, tails)]
        block = Block(tuple(facts), list(compress(numbers, tails)))
        others: list[Any] = other_lines
        if self.statements.literals is None:
            # Lines that are neither facts of the plain shape nor other lines are literals.
            self.report.literals += other_lines.count(None) - plain
        else:
            others = list(map(not_, tails))
        self._add_all(compress(numbers, others), [compress(column, others) for column in columns])
        return _merged(block, self.statements.block())

    def _add_all(self, numbers: Iterable[int], columns: Iterable[Iterable[Any]]) -> None:
        """Add lines one by one."""
        add = self.statements.add
        for number, head, relation, tail, text, mark, line in zip(numbers, *columns, strict=True):
            if tail is not None:
                add(number, head, relation, tail)
            elif line is not None:
                self._parse(number, line)
            elif (kind := self._mark(mark)) is None:
                self._parse(number, f'{rdf.node_term(head)} <{relation}> "{text}"{mark} .')
            else:
                text = _ESCAPE.sub(_unescaped, text) if "\\" in text else text
                add(number, head, relation, Value(text, kind.language, kind.datatype))

    def _parse(self, number: int, line: str | bytes) -> None:
        """Add a line as pyoxigraph parses it."""
        raw = (line.encode() if isinstance(line, str) else line).removesuffix(b"\n")
        if not raw.strip(b" \t\r"):
            self.report.blank += 1
            return
        try:
            quads = rdf.parse_ntriples(raw)
            if len(quads) > 1:
                # For pyoxigraph, a carriage return alone ends a line.
                raise ValueError(f"{len(quads)} statements in a line; end each with a line feed")
            statement = rdf.statement(quads[0]) if quads else None
        except SyntaxError as error:
            self.report.reject(number, rdf.error_reason(error), raw)
        except (ValueError, MemoryError) as error:
            # MemoryError: the line is longer than pyoxigraph reads.
            self.report.reject(number, str(error), raw)
        else:
            if statement is None:
                self.report.comments += 1
            else:
                self.statements.add(number, *statement)

    def _mark(self, mark: str) -> Value | None:
        """The empty literal with a language or datatype as written, or None if it is invalid."""
        if mark not in self.marks:
            if len(self.marks) >= MARKS:
                self.marks.clear()
            try:
                (quad,) = rdf.parse_ntriples(f'<a:a> <a:a> ""{mark} .')
            except SyntaxError:
                self.marks[mark] = None
            else:
                literal = rdf.statement(quad)[2]
                assert isinstance(literal, Value)
                self.marks[mark] = literal
        return self.marks[mark]


def _split_lines(data: bytes) -> tuple[list[Any], bool]:
    """The parts of lines (see `PARTS`), and whether an IRI under BASE may be among them."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        parts = [part for raw in data.split(b"\n")[:-1] for part in _split_line(raw)[1:]]
        return ["", *parts], True
    # One list for all lines: a tuple per line would take longer.
    return _LINES.split(text), BASE in text


def _split_line(raw: bytes) -> list[Any]:
    try:
        return _LINES.split(raw.decode() + "\n")
    except UnicodeDecodeError:
        # The invalid bytes may be in a comment, which pyoxigraph accepts.
        return ["", None, None, None, None, None, raw, ""]


def _merged(one: Block, two: Block) -> Block:
    """The rows of two blocks in the order of their lines."""
    if not two.lines:
        return one
    numbers = [*one.lines, *two.lines]
    order = sorted(range(len(numbers)), key=numbers.__getitem__)
    columns = [[*a, *b] for a, b in zip(one.columns, two.columns, strict=True)]
    in_order = (list(map(column.__getitem__, order)) for column in columns)
    return Block(tuple(in_order), list(map(numbers.__getitem__, order)))


def _unescaped(match: re.Match[str]) -> str:
    code, letter = match.groups()
    return chr(int(code, 16)) if code else _ESCAPED.get(letter, letter)


def write(path: str | Path, rows: Iterable[Row]) -> None:
    """Write facts as N-Triples; `statements` reads exactly their names.

    A name that is an absolute IRI or a blank node (``_:label``, not as a relation) is written as
    such, any other under `rdf.BASE`.

    Raises:
        ValueError: pyoxigraph is not installed; see also `writers.batches` and `writers.written`.
    """
    rdf.oxigraph()
    with atomic_file(path) as file:
        for batch in batches(rows, path):
            lines = [f"{term(h)} {term(r, relation=True)} {term(t)} .\n" for h, r, t in batch]
            file.write("".join(lines).encode())


FORMAT = Format(
    name="N-Triples",
    endings=(".nt", ".ntriples"),
    facts=facts_of(statements),
    write=write,
    statements=statements,
)
