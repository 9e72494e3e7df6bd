"""Which three columns of a table hold the facts: told by the reader, or by the table's header."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

# What the columns of a table of facts are called, in the order head, relation, tail.
HEADERS = (
    ("head", "relation", "tail"),
    ("subject", "predicate", "object"),
    ("subject", "relation", "object"),
    ("source", "relation", "target"),
    ("from", "rel", "to"),
    ("h", "r", "t"),
    ("s", "p", "o"),
)


@dataclass(frozen=True)
class FactColumns:
    """Names of the columns that hold heads, relations and tails.

    Raises:
        ValueError: two of them are the same.
    """

    head: str
    relation: str
    tail: str

    def __post_init__(self) -> None:
        if len(set(astuple(self))) != 3:
            raise ValueError(
                f"head, relation and tail are three different columns, not {astuple(self)}"
            )


@dataclass(frozen=True)
class CellColumns:
    """Names of any columns, whose cells may be empty; `FactColumns` is for facts.

    Attributes:
        several: the column whose cell may be a list, which gives a row for each of its values.
    """

    names: tuple[str, ...]
    several: str | None = None


Wanted = FactColumns | CellColumns | None


def places(header: Sequence[str], columns: Wanted, where: str) -> tuple[int, ...]:
    """Where the columns of head, relation and tail stand in a header, or those of `CellColumns`.

    Without `columns`, the header has to hold exactly one of the triples in `HEADERS`, in capital or
    small letters. Further columns are allowed, and not read. `where` is the file (and line) that an
    error names.

    Raises:
        ValueError: a column is missing, stands there twice, or it is open which ones are meant.
    """
    if columns is None:
        small = [name.lower() for name in header]
        found = [known for known in HEADERS if set(known) <= set(small)]
        if len(found) != 1:
            raise ValueError(f"{where}: {_undecided(header, found)}")
        wanted: Sequence[str] = found[0]
    else:
        small = list(header)
        wanted = columns.names if isinstance(columns, CellColumns) else astuple(columns)
    for name in wanted:
        if (count := small.count(name)) != 1:
            often = "no column" if not count else f"{count} columns"
            raise ValueError(f"{where}: {often} named {name!r}, one is needed; {_here(header)}")
    return tuple(map(small.index, wanted))


def _undecided(header: Sequence[str], found: Sequence[tuple[str, ...]]) -> str:
    problem = (
        f"both {' '.join(found[0])} and {' '.join(found[1])} are columns"
        if found
        else "there are none of the usual names (head relation tail, subject predicate object)"
    )
    remedy = "say which columns hold the facts, in a recipe (docs/data.md)"
    return f"{problem}; {remedy}; {_here(header)}"


def _here(header: Sequence[str]) -> str:
    shown = ", ".join(repr(name[:40]) for name in header[:8])
    return f"here are {shown}{', ...' if len(header) > 8 else ''}"
