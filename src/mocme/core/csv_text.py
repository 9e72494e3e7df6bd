"""CSV text, the same wherever the package writes it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from mocme.core.text import guard_formula


def csv_text(
    rows: Iterable[Sequence[object]], *, line_end: str = "\r\n", guard: bool = False
) -> str:
    r"""Rows as CSV (RFC 4180): a cell is quoted if it needs to be, and quotes in it are doubled.

    Args:
        rows: cells are written as `str` does; None is an empty cell.
        line_end: of each row. A cell that contains a character of it is quoted, so only the
            default protects a carriage return in every version of Python.
        guard: precede a text by an apostrophe if a spreadsheet would run it as a formula.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator=line_end)
    if guard:
        rows = ([guard_formula(c) if isinstance(c, str) else c for c in row] for row in rows)
    writer.writerows(rows)
    return text.getvalue()
