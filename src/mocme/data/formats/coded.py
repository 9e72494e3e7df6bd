"""Columns that hold each distinct name once, and a number for each row.

Facts repeat their names, and to look every one up in a dictionary of Python takes longer than to
read the file. Arrow finds the distinct names of a large piece of text several times as fast, so
that a dictionary sees those only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any, overload

import numpy as np
from jaxtyping import Int

# Bytes of text below which it takes longer to load Arrow than is gained.
WORTHWHILE = 1 << 22
ARROW = find_spec("pyarrow") is not None


class CodedColumn(Sequence[str]):
    """A column of names.

    Args:
        names: that occur in it, distinct, in any order; other ones too (columns may share a list).
        places: of each row's name among them.
    """

    def __init__(self, names: Sequence[str], places: Int[np.ndarray, " n"]) -> None:
        self.names, self.places = names, places

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, row: int) -> str: ...

    @overload
    def __getitem__(self, row: slice) -> CodedColumn: ...

    def __getitem__(self, row: int | slice) -> str | CodedColumn:
        if isinstance(row, slice):
            return CodedColumn(self.names, self.places[row])
        return self.names[int(self.places[row])]

    def __iter__(self) -> Iterator[str]:
        return map(self.names.__getitem__, self.places.tolist())


def cut(text: bytes, ends: Int[np.ndarray, " _"], width: int) -> tuple[Sequence[str], ...]:
    """The columns of a text without anything but cells.

    Args:
        text: cells, row by row, each with the same one byte after it, which is in none of them.
        ends: where these bytes stand.
        width: cells of a row.

    Raises:
        UnicodeDecodeError: the text is not UTF-8.
    """
    if ARROW and len(text) >= WORTHWHILE:
        names, places = _distinct(text, ends)
        by_row = places.reshape(-1, width)
        return tuple(CodedColumn(names, by_row[:, place]) for place in range(width))
    cells = _cells(text)
    return tuple(cells[place::width] for place in range(width))


def _distinct(
    text: bytes, ends: Int[np.ndarray, " _"]
) -> tuple[list[str], Int[np.ndarray, " cells"]]:
    import pyarrow

    starts = np.zeros(len(ends) + 1, np.int64)
    np.add(ends, 1, out=starts[1:])
    buffers = [None, pyarrow.py_buffer(starts), pyarrow.py_buffer(text)]
    cells = pyarrow.Array.from_buffers(pyarrow.large_binary(), len(ends), buffers)
    coded = cells.dictionary_encode()
    # Each distinct cell with the byte after it, one after the other: a text like the one given.
    _, bounds, distinct = coded.dictionary.buffers()
    whole = int(np.frombuffer(bounds, np.int64)[len(coded.dictionary)])
    return _cells(distinct[:whole].to_pybytes()), coded.indices.to_numpy()


def of_arrow(cells: Any) -> CodedColumn:
    """The column of an Arrow array of strings, none of which is null."""
    coded = cells.dictionary_encode()
    names = coded.dictionary.to_numpy(zero_copy_only=False).tolist()
    return CodedColumn(names, coded.indices.to_numpy())


def _cells(text: bytes) -> list[str]:
    cells = text.decode().split(chr(text[-1]))
    cells.pop()
    return cells


def together(columns: Sequence[CodedColumn]) -> tuple[list[str], Int[np.ndarray, "n columns"]]:
    """The names of several columns in the order in which they first come, row by row.

    Returns:
        names, and the place of each cell's name among them.
    """
    names: list[str] = []
    found = np.empty((len(columns[0]), len(columns)), np.int64)
    for place, column in enumerate(columns):
        shared = place and column.names is columns[0].names
        np.add(column.places, 0 if shared else len(names), out=found[:, place])
        names += () if shared else column.names
    cells = found.reshape(-1)
    first = np.full(len(names), len(cells))
    # Of what is written to one place several times, the last stays.
    first[cells[::-1]] = np.arange(len(cells))[::-1]
    order = np.argsort(first, kind="stable")[: np.count_nonzero(first < len(cells))]
    rank = np.empty(len(names), np.int64)
    rank[order] = np.arange(len(order))
    return [names[place] for place in order.tolist()], rank[found]
