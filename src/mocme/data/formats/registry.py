"""Which module reads or writes a file: told by the ending of its name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from mocme.data.formats import (
    cypher,
    delimited,
    jsonl,
    ntriples,
    parquet,
    quads,
    tsv,
    turtle,
    writers,
)
from mocme.data.formats.named import FactColumns
from mocme.data.formats.report import Block, Report
from mocme.data.formats.streams import COMPRESSED


@runtime_checkable
class Reader(Protocol):
    """Rows (head, relation, tail) of a file, block by block."""

    def __call__(
        self, path: str | Path, report: Report, columns: FactColumns | None = None
    ) -> Iterator[Block]: ...


class Format(NamedTuple):
    """A file format for facts.

    Attributes:
        endings: of file names, without that of a compression.
        facts: rows of a file; where its columns have names, those that are asked for.
        write: rows into a file, or ``-``.
    """

    name: str
    endings: tuple[str, ...]
    facts: Reader
    write: Callable[[str | Path, Iterable[writers.Row]], None]


def _tsv(path: str | Path, report: Report, columns: FactColumns | None = None) -> Iterator[Block]:
    if columns is not None:
        raise ValueError(
            f"{path}: columns of TSV have no names; leave them out, or, if the file has a header, "
            f"convert it to CSV"
        )
    return tsv.facts(path, report)


def _rdf(facts: Callable[..., Iterator[Block]]) -> Reader:
    def read(
        path: str | Path, report: Report, columns: FactColumns | None = None
    ) -> Iterator[Block]:
        if columns is not None:
            raise ValueError(f"{path}: RDF has no columns; leave them out")
        return facts(path, report)

    return read


TSV = (".tsv", ".txt")
FORMATS = (
    Format("TSV", TSV, _tsv, writers.write_tsv),
    Format("CSV", (".csv",), delimited.facts, delimited.write),
    Format("JSON lines", (".jsonl", ".ndjson"), jsonl.facts, jsonl.write),
    Format("Parquet", (".parquet",), parquet.facts, parquet.write),
    Format("N-Triples", ntriples.ENDINGS, _rdf(ntriples.facts), ntriples.write),
    Format("Turtle", turtle.ENDINGS, _rdf(turtle.facts), ntriples.write),
)


def _refuse(path: str | Path, rows: Iterable[writers.Row]) -> None:
    raise ValueError(f"{path}: facts are not written as N-Quads; name it .nt")


REFUSED = (Format("N-Quads", quads.ENDINGS, _rdf(quads.facts), _refuse),)
WRITTEN_ONLY = (Format("Cypher", (".cypher",), cypher.facts, cypher.write),)
KINDS = {known.endings[0].removeprefix("."): known for known in (*FORMATS, *WRITTEN_ONLY)}
ENDINGS = tuple(ending for known in FORMATS for ending in known.endings)


def ending(path: str | Path) -> str:
    """The ending of a file's name in small letters, without that of a compression."""
    name = Path(path).name.lower()
    for packed in COMPRESSED:
        name = name.removesuffix(packed)
    return Path(name).suffix


def format_of(path: str | Path) -> Format:
    """The format of a file.

    Raises:
        ValueError: its name has no known ending.
    """
    found = ending(path)
    for known in (*FORMATS, *WRITTEN_ONLY, *REFUSED):
        if found in known.endings:
            return known
    raise ValueError(
        f"{path}: the ending {found!r} belongs to no known format; known: {', '.join(ENDINGS)}, "
        f"each also with {' or '.join(COMPRESSED)}"
    )


def format_named(kind: str) -> Format:
    """The format of a name: ``tsv``, ``csv``, ``jsonl``, ``parquet``, ``nt``, ``ttl``, ``cypher``.

    Raises:
        ValueError: there is no such format.
    """
    if kind not in KINDS:
        raise ValueError(f"a format is one of {', '.join(KINDS)}, not {kind!r}")
    return KINDS[kind]
