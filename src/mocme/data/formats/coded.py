"""Dictionary-encoded columns: each distinct name once, and a code per row.

Facts repeat their names, and looking up each one in a Python dictionary takes longer than reading
the file. Arrow finds the distinct names of a large piece of text several times as fast, so only
those reach a Python dictionary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any, overload

import numpy as np
from jaxtyping import Int

# Bytes of text from which loading and calling Arrow pays off.
ARROW_BYTES = 1 << 22
HAS_ARROW = find_spec("pyarrow") is not None


class CodedColumn(Sequence[str]):
    """A dictionary-encoded column of names.

    Args:
        names: the dictionary: distinct, in any order; columns may share it, so it may contain
            names that do not occur in this column.
        codes: index in `names` of the name of each row.
    """

    def __init__(self, names: Sequence[str], codes: Int[np.ndarray, " n"]) -> None:
        self.names, self.codes = names, codes

    def __len__(self) -> int:
        return len(self.codes)

    @overload
    def __getitem__(self, row: int) -> str: ...

    @overload
    def __getitem__(self, row: slice) -> CodedColumn: ...

    def __getitem__(self, row: int | slice) -> str | CodedColumn:
        if isinstance(row, slice):
            return CodedColumn(self.names, self.codes[row])
        return self.names[int(self.codes[row])]

    def __iter__(self) -> Iterator[str]:
        return map(self.names.__getitem__, self.codes.tolist())


def split_columns(
    text: bytes, ends: Int[np.ndarray, " _"], width: int
) -> tuple[Sequence[str], ...]:
    """The columns of a text that consists of cells only.

    Args:
        text: cells in row order. Each is followed by the same one byte, which no cell contains.
        ends: indices of these bytes.
        width: cells per row.

    Raises:
        UnicodeDecodeError: the text is not UTF-8.
    """
    if HAS_ARROW and len(text) >= ARROW_BYTES:
        names, codes = _dictionary_encode(text, ends)
        codes_by_row = codes.reshape(-1, width)
        return tuple(CodedColumn(names, codes_by_row[:, column]) for column in range(width))
    cells = _split_cells(text)
    return tuple(cells[column::width] for column in range(width))


def _dictionary_encode(
    text: bytes, ends: Int[np.ndarray, " _"]
) -> tuple[list[str], Int[np.ndarray, " cells"]]:
    import pyarrow

    # A binary Arrow array over the text itself, without a copy: cell i is text[starts[i] :
    # starts[i + 1]] and includes its end byte.
    starts = np.zeros(len(ends) + 1, np.int64)
    np.add(ends, 1, out=starts[1:])
    buffers = [None, pyarrow.py_buffer(starts), pyarrow.py_buffer(text)]
    cells = pyarrow.Array.from_buffers(pyarrow.large_binary(), len(ends), buffers)
    encoded = cells.dictionary_encode()
    # The data buffer of the dictionary holds the distinct cells with their end bytes, so it has
    # the same form as `text`.
    _, bounds, distinct = encoded.dictionary.buffers()
    size = int(np.frombuffer(bounds, np.int64)[len(encoded.dictionary)])
    return _split_cells(distinct[:size].to_pybytes()), encoded.indices.to_numpy()


def from_arrow(cells: Any) -> CodedColumn:
    """The column of an Arrow array of strings without nulls."""
    encoded = cells.dictionary_encode()
    names = encoded.dictionary.to_numpy(zero_copy_only=False).tolist()
    return CodedColumn(names, encoded.indices.to_numpy())


def _split_cells(text: bytes) -> list[str]:
    cells = text.decode().split(chr(text[-1]))
    cells.pop()
    return cells


def unify_dictionaries(
    columns: Sequence[CodedColumn],
) -> tuple[list[str], Int[np.ndarray, "n columns"]]:
    """One dictionary for several columns, in order of first occurrence, row by row.

    Returns:
        The names that occur, and the code of each cell.
    """
    names: list[str] = []
    codes = np.empty((len(columns[0]), len(columns)), np.int64)
    for index, column in enumerate(columns):
        shared = index and column.names is columns[0].names
        np.add(column.codes, 0 if shared else len(names), out=codes[:, index])
        names += () if shared else column.names
    cells = codes.reshape(-1)
    first = np.full(len(names), len(cells))
    # Assignment keeps the last value written to an index, so cells are assigned in reverse.
    first[cells[::-1]] = np.arange(len(cells))[::-1]
    order = np.argsort(first, kind="stable")[: np.count_nonzero(first < len(cells))]
    new_codes = np.empty(len(names), np.int64)
    new_codes[order] = np.arange(len(order))
    return [names[code] for code in order.tolist()], new_codes[codes]
