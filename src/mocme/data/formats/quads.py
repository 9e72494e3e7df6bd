"""N-Quads and TriG: refused, because a row (head, relation, tail) has no place for a graph name."""

from __future__ import annotations

from collections.abc import Container, Iterator
from pathlib import Path

from mocme.data.formats.literals import Literals
from mocme.data.formats.report import Block, Report

ENDINGS = (".nq", ".nquads", ".trig")


def facts(
    path: str | Path,
    report: Report,
    literals: Literals | None = None,
    predicates: Container[str] | None = None,
) -> Iterator[Block]:
    """Refuse to read.

    Raises:
        ValueError: always, with the way to facts of one graph.
    """
    raise ValueError(
        f"{path}: its statements belong to graphs with names, which would be lost; save those of "
        f"one graph as N-Triples (.nt), for instance with pyoxigraph's Store.dump and from_graph"
    )
