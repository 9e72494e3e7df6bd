"""N-Quads and TriG: refused, because a row (head, relation, tail) has no place for a graph name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from mocme.data.formats.base import Format
from mocme.data.formats.columns import FactColumns
from mocme.data.formats.report import Block, Report
from mocme.data.formats.writers import Row


def facts(path: str | Path, report: Report, columns: FactColumns | None = None) -> Iterator[Block]:
    """Refuse to read.

    Raises:
        ValueError: always, with the way to get the facts of one graph.
    """
    raise ValueError(
        f"{path}: its statements belong to named graphs, and the names would be lost; save those "
        f"of one graph as N-Triples (.nt), for instance with pyoxigraph's Store.dump and from_graph"
    )


def write(path: str | Path, rows: Iterable[Row]) -> None:
    """Refuse to write.

    Raises:
        ValueError: always, with the format to write instead.
    """
    raise ValueError(f"{path}: facts are not written as N-Quads; name it .nt")


FORMAT = Format(
    name="N-Quads",
    endings=(".nq", ".nquads", ".trig"),
    facts=facts,
    write=write,
    readable=False,
    writable=False,
)
