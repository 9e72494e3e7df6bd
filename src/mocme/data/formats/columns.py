"""Which columns of a table are read: chosen by the caller, or found in the header."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

# Names that the columns of a table of facts commonly have, in the order head, relation, tail.
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
        several: the column whose cell may be a list, which gives one row per value.
    """

    names: tuple[str, ...]
    several: str | None = None


Columns = FactColumns | CellColumns | None


def column_indices(header: Sequence[str], columns: Columns, where: str) -> tuple[int, ...]:
    """Indices in a header of the head, relation and tail columns, or of `CellColumns`.

    Without `columns`, the header must contain exactly one of the triples in `HEADERS`, in upper or
    lower case. Other columns are allowed and not read.

    Args:
        where: the file (and line) that an error names.

    Raises:
        ValueError: a column is missing or occurs twice, or several triples match.
    """
    if columns is None:
        names = [name.lower() for name in header]
        matches = [triple for triple in HEADERS if set(triple) <= set(names)]
        if len(matches) != 1:
            raise ValueError(f"{where}: {_ambiguous(header, matches)}")
        wanted: Sequence[str] = matches[0]
    else:
        names = list(header)
        wanted = columns.names if isinstance(columns, CellColumns) else astuple(columns)
    for name in wanted:
        if (count := names.count(name)) != 1:
            problem = "no column" if not count else f"{count} columns"
            raise ValueError(f"{where}: {problem} named {name!r}, one is needed; {_listed(header)}")
    return tuple(map(names.index, wanted))


def _ambiguous(header: Sequence[str], matches: Sequence[tuple[str, ...]]) -> str:
    problem = (
        f"both {' '.join(matches[0])} and {' '.join(matches[1])} are columns"
        if matches
        else "there are none of the usual names (head relation tail, subject predicate object)"
    )
    remedy = "say which columns hold the facts, in a recipe (docs/data.md)"
    return f"{problem}; {remedy}; {_listed(header)}"


def _listed(header: Sequence[str]) -> str:
    shown = ", ".join(repr(name[:40]) for name in header[:8])
    return f"here are {shown}{', ...' if len(header) > 8 else ''}"
