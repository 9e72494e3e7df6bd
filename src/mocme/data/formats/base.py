"""What a format module declares: file name endings, readers and a writer."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, final, runtime_checkable

from mocme.data.formats.columns import CellColumns, FactColumns
from mocme.data.formats.literals import Literals
from mocme.data.formats.report import Block, Report
from mocme.data.formats.writers import Row


@runtime_checkable
class FactReader(Protocol):
    """Reads facts block by block, as (head, relation, tail) columns."""

    def __call__(
        self, path: str | Path, report: Report, columns: FactColumns | None = None
    ) -> Iterator[Block]: ...


@runtime_checkable
class CellReader(Protocol):
    """Reads the cells of any columns block by block; an empty cell is an empty string."""

    def __call__(
        self, path: str | Path, report: Report, columns: CellColumns
    ) -> Iterator[Block]: ...


@runtime_checkable
class StatementReader(Protocol):
    """Reads RDF block by block: facts as rows, literals into tables.

    Args:
        literals: receives the literals; None only counts them.
        predicates: the predicates to keep, None for all; `report` must then be a `Selection`.
    """

    def __call__(
        self,
        path: str | Path,
        report: Report,
        literals: Literals | None = None,
        predicates: Container[str] | None = None,
    ) -> Iterator[Block]: ...


FactWriter = Callable[[str | Path, Iterable[Row]], None]


@final
@dataclass(frozen=True, kw_only=True)
class Format:
    """A file format for facts.

    Attributes:
        name: for messages.
        endings: of file names, in lower case, without the ending of a compression. The first one
            names the format on the command line (``csv``).
        facts: reads facts; raises ValueError if the format cannot be read or has no named columns.
        write: writes facts to a file, or to standard output for ``-``.
        cells: reads any columns, if the format is a table.
        statements: reads facts and literals, if the format is RDF.
        numbered: columns have no names but numbers from 1.
        diagnose: says what a file without a single fact seems to be instead, with the remedy.
        readable: whether a folder of splits may use the format.
        writable: whether the format can be chosen for output.
    """

    name: str
    endings: tuple[str, ...]
    facts: FactReader
    write: FactWriter
    cells: CellReader | None = None
    statements: StatementReader | None = None
    numbered: bool = False
    diagnose: Callable[[Path, Report], str] | None = None
    readable: bool = True
    writable: bool = True


def facts_of(statements: StatementReader) -> FactReader:
    """The fact reader of an RDF format, which has no columns and only counts literals."""

    def facts(
        path: str | Path, report: Report, columns: FactColumns | None = None
    ) -> Iterator[Block]:
        if columns is not None:
            raise ValueError(f"{path}: RDF has no columns; leave them out")
        return statements(path, report)

    return facts
