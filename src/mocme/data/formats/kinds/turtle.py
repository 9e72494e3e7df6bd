"""Turtle as pyoxigraph parses it, with reproducible names for blank nodes; written as N-Triples.

A statement has no line of its own, so statements are counted instead: `Report.lines`, the lines of
blocks and those of rejects are numbers of statements (subject, predicate, object), from 1.
"""

from __future__ import annotations

import io
import re
from collections.abc import Container, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from mocme.data.formats.base import Format, facts_of
from mocme.data.formats.kinds import ntriples
from mocme.data.formats.literals import Literals
from mocme.data.formats.rdf import error_reason, oxigraph, statement
from mocme.data.formats.report import Block, Report
from mocme.data.formats.statements import Statements
from mocme.data.formats.streams import BOM, open_stream

ROWS = 1 << 15  # statements per block
# Characters of a label; dots at its end do not belong to it.
_LABEL = re.compile(
    "_:([A-Za-z0-9_:.\u00b7\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u037d\u037f-\u1fff\u200c\u200d"
    "\u203f\u2040\u2070-\u218f\u2c00-\u2fef\u3001-\ud7ff\uf900-\ufdcf\ufdf0-\ufffd"
    "\U00010000-\U000effff-]+)"
)


def statements(
    path: str | Path,
    report: Report,
    literals: Literals | None = None,
    predicates: Container[str] | None = None,
    *,
    base: str | None = None,
) -> Iterator[Block]:
    """Facts of a file, block by block; a row is subject, predicate, object.

    A blank node with a label keeps it. One without a label gets the next free name of ``_:b0``,
    ``_:b1``, ... in the order of statements; so does one whose label was already given out as such
    a name.

    Args:
        literals: receives statements whose object is a literal; None only counts them and does
            not check their numbers.
        predicates: the predicates to keep, None for all; `report` must then be a `Selection`.
        base: resolves relative IRIs, unless the file declares its own base.

    Raises:
        ValueError: the file is absent or cannot be read; it has an error (with its line: nothing
            can be read after it); the base is not an absolute IRI; or pyoxigraph is not installed.
    """
    known = oxigraph()
    collected = Statements(report, literals, predicates)
    with open_stream(path, report) as file:
        text = _LabelReader(file, report)
        try:
            quads = known.parse(text, format=known.RdfFormat.TURTLE, base_iri=base)
        except ValueError as error:
            raise ValueError(
                f"{path}: the base {base!r} is not an absolute IRI ({error}); correct it"
            ) from error
        nodes = _BlankNodes(text.labels)
        while batch := _next(quads, path):
            for quad in batch:
                _add(quad, collected, nodes)
            block = collected.block()
            if block.lines:
                yield block


def _next(quads: Iterator[Any], path: str | Path) -> list[Any]:
    try:
        return list(islice(quads, ROWS))
    except SyntaxError as error:
        raise ValueError(
            f"{path}: line {error.lineno}: {error_reason(error)}; correct it there, a Turtle file "
            f"cannot be read past an error"
        ) from error
    except MemoryError as error:
        # pyoxigraph raises it for a token over its limit, not for lack of memory.
        raise ValueError(
            f"{path}: a statement or a comment is longer than 16 MiB; shorten it"
        ) from error


def _add(quad: Any, collected: Statements, nodes: _BlankNodes) -> None:
    report = collected.report
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
    collected.add(report.lines, head, relation, target)


class _LabelReader:
    """The bytes of a file for pyoxigraph; collects every blank node label in them."""

    def __init__(self, file: io.BufferedIOBase, report: Report) -> None:
        self.file = file
        self.labels: set[str] = set()
        self._pending = b""
        start = b""
        while len(start) < len(BOM) and (more := file.read(len(BOM) - len(start))):
            start += more
        report.bom = start == BOM
        self._start = b"" if report.bom else start

    def read(self, size: int) -> bytes:
        data = self._start[:size] or self.file.read(size)
        self._start = self._start[size:]
        seen = self._pending + data
        # A label may continue in the next piece, so the text after the last space is kept.
        self._pending = seen[max(map(seen.rfind, (b" ", b"\n", b"\t"))) + 1 :]
        for label in _LABEL.findall(seen.decode(errors="replace")):
            # The part after a colon may be a prefixed name of its own.
            self.labels.update((label.rstrip("."), label.partition(":")[0].rstrip(".")))
        return data


class _BlankNodes:
    """Reproducible names of blank nodes.

    pyoxigraph names a node without a label by 128 random bits, so a name that is not a label of
    the text belongs to such a node.
    """

    def __init__(self, labels: set[str]) -> None:
        self.labels = labels
        self.names: dict[str, str] = {}
        self.used: set[str] = set()
        self.count = 0

    def name(self, node: str) -> str:
        """The name of a node that pyoxigraph calls `node`."""
        if node not in self.names:
            name = node if node.removeprefix("_:") in self.labels else ""
            while not name or name in self.used:
                name, self.count = f"_:b{self.count}", self.count + 1
            self.used.add(name)
            self.names[node] = name
        return self.names[node]


FORMAT = Format(
    name="Turtle",
    endings=(".ttl", ".turtle"),
    facts=facts_of(statements),
    write=ntriples.write,
    statements=statements,
)
