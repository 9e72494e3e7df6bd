"""Turtle, as pyoxigraph reads it, with blank nodes that are named alike each time.

A statement has no line of its own here, so statements are counted instead: `Report.lines`, the
lines of blocks and those of rejects are numbers of statements (subject, predicate, object), from 1.
"""

from __future__ import annotations

import io
import re
from collections.abc import Container, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from mocme.data.formats.literals import Literals
from mocme.data.formats.rdf import oxigraph, reason, statement
from mocme.data.formats.report import Block, Report
from mocme.data.formats.statements import Statements
from mocme.data.formats.streams import BOM, opened

ENDINGS = (".ttl", ".turtle")
ROWS = 1 << 15  # statements a block
# What may stand in a label; at its end, dots are no part of it.
_LABEL = re.compile(
    "_:([A-Za-z0-9_:.\u00b7\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u037d\u037f-\u1fff\u200c\u200d"
    "\u203f\u2040\u2070-\u218f\u2c00-\u2fef\u3001-\ud7ff\uf900-\ufdcf\ufdf0-\ufffd"
    "\U00010000-\U000effff-]+)"
)


def facts(
    path: str | Path,
    report: Report,
    literals: Literals | None = None,
    predicates: Container[str] | None = None,
    *,
    base: str | None = None,
) -> Iterator[Block]:
    """Facts of a file, block by block; a row is subject, predicate, object.

    A blank node with a label keeps it; one without gets the next free name of ``_:b0``, ``_:b1``,
    ... in the order of statements. So does one whose label such a name has taken before.

    Args:
        literals: where statements go whose object is a literal; None counts them only, and does
            not look at their numbers.
        predicates: whose statements are kept, None for all; `report` is a `Selection` then.
        base: what relative IRIs start from, unless the file says so itself.

    Raises:
        ValueError: the file is absent or cannot be read, has an error (with its line: nothing can
            be read after it), or pyoxigraph is not installed; named with the remedy.
    """
    known = oxigraph()
    statements = Statements(report, literals, predicates)
    with opened(path, report) as file:
        text = _Text(file, report)
        try:
            quads = known.parse(text, format=known.RdfFormat.TURTLE, base_iri=base)
        except ValueError as error:
            raise ValueError(
                f"{path}: the base {base!r} is no absolute IRI ({error}); correct it"
            ) from error
        nodes = _BlankNodes(text.labels)
        while found := _next(quads, path):
            for quad in found:
                _take(quad, statements, nodes)
            block = statements.block()
            if block.lines:
                yield block


def _next(quads: Iterator[Any], path: str | Path) -> list[Any]:
    try:
        return list(islice(quads, ROWS))
    except SyntaxError as error:
        raise ValueError(
            f"{path}: line {error.lineno}: {reason(error)}; correct it there, a Turtle file cannot "
            f"be read past an error"
        ) from error
    except MemoryError as error:
        # What pyoxigraph raises, not for want of memory.
        raise ValueError(
            f"{path}: holds a statement or a comment that is longer than 16 MiB; shorten it"
        ) from error


def _take(quad: Any, statements: Statements, nodes: _BlankNodes) -> None:
    report = statements.report
    report.lines += 1
    try:
        head, relation, target = statement(quad)
    except ValueError as error:
        report.reject(report.lines, str(error), str(quad))
        return
    if head.startswith("_:"):
        head = nodes.name(head)
    if isinstance(target, str) and target.startswith("_:"):
        target = nodes.name(target)
    statements.add(report.lines, head, relation, target)


class _Text:
    """The bytes of a file on their way to pyoxigraph, and every label that passes in them."""

    def __init__(self, file: io.BufferedIOBase, report: Report) -> None:
        self.file = file
        self.labels: set[str] = set()
        self._rest = b""
        start = b""
        while len(start) < len(BOM) and (more := file.read(len(BOM) - len(start))):
            start += more
        report.bom = start == BOM
        self._start = b"" if report.bom else start

    def read(self, size: int) -> bytes:
        data = self._start[:size] or self.file.read(size)
        self._start = self._start[size:]
        seen = self._rest + data
        # A label may go on in the next piece, so what comes after the last space is held.
        self._rest = seen[max(map(seen.rfind, (b" ", b"\n", b"\t"))) + 1 :]
        for label in _LABEL.findall(seen.decode(errors="replace")):
            # What begins with a colon may be a name of its own.
            self.labels.update((label.rstrip("."), label.partition(":")[0].rstrip(".")))
        return data


class _BlankNodes:
    """Names of blank nodes.

    pyoxigraph calls a node that has no label by 128 random bits; so what the text does not hold as
    a label is such a node.
    """

    def __init__(self, labels: set[str]) -> None:
        self.labels = labels
        self.names: dict[str, str] = {}
        self.taken: set[str] = set()
        self.count = 0

    def name(self, node: str) -> str:
        """The name of a node as pyoxigraph calls it."""
        if node not in self.names:
            found = node if node.removeprefix("_:") in self.labels else ""
            while not found or found in self.taken:
                found, self.count = f"_:b{self.count}", self.count + 1
            self.taken.add(found)
            self.names[node] = found
        return self.names[node]
