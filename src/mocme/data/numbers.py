"""Numbers in cells of tables: which are used, and what is wrong with the others."""

from __future__ import annotations

from mocme.core.numbers import parse_number

# Beyond float32 nothing could be compared: a model reads numbers in that type.
LARGEST = 3.4028234663852886e38


def finite_number(cell: str) -> float | None:
    """The number in a cell of a table; None if there is none within ± `LARGEST`."""
    try:
        number = parse_number(cell)
    except ValueError:
        return None
    return number if -LARGEST <= number <= LARGEST else None


def number_problem(cell: str) -> str:
    """What is wrong with a cell of which `finite_number` is None."""
    shown = repr(cell[:40])
    try:
        parse_number(cell)
    except ValueError as error:
        hint = str(error).partition("; ")[2]
        return f"{shown} is not a finite number" + (f"; {hint}" if hint else "")
    return f"{shown} is beyond 3.4e38, the range of float32"
