"""Numbers in cells of tables: which are used, and what is wrong with the others."""

from __future__ import annotations

import math

# Beyond float32 nothing could be compared: a model reads numbers in that type.
LARGEST = 3.4028234663852886e38


def finite_number(cell: str) -> float | None:
    """The number in a cell of a table; None if there is none within ± `LARGEST`.

    Underscores, which Python allows between digits, are not part of a number.
    """
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if -LARGEST <= number <= LARGEST and "_" not in cell else None


def number_problem(cell: str) -> str:
    """What is wrong with a cell of which `finite_number` is None."""
    try:
        number = float(cell.replace("_", "x"))
    except ValueError:
        number = math.nan
    shown = repr(cell[:40])
    if abs(number) > LARGEST and "inf" not in cell.lower():
        return f"{shown} is beyond 3.4e38, the range of float32"
    return f"{shown} is not a finite number"
